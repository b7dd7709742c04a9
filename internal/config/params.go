package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const (
	// BootIface is the name in a ssi.net parameter of the interface that the
	// machine booted from.
	BootIface = "boot"

	maxParams = 512 // words of a command line; the kernel takes 2,048 bytes
)

// Words splits a kernel command line. Double quotes keep white space together
// and are dropped (lib/cmdline.c, next_arg).
func Words(cmdline string) []string {
	var words []string
	var word strings.Builder
	quoted, any := false, false
	for _, c := range cmdline {
		switch {
		case c == '"':
			quoted, any = !quoted, true
		case !quoted && strings.ContainsRune(" \t\n", c):
			if any {
				words = append(words, word.String())
			}
			word.Reset()
			any = false
		default:
			word.WriteRune(c)
			any = true
		}
	}
	if any {
		words = append(words, word.String())
	}
	return words
}

// FromParams is the configuration of a machine that was booted over the
// network: the defaults and what the words KEY=VALUE of its kernel command line
// say. It understands these keys and leaves all others to others:
//
//	BOOTIF=01-52-54-00-12-34-56  the interface it booted from (pxelinux, IPAPPEND 2)
//	ssi.bootif=52:54:00:12:34:56 the same
//	ssi.net=SETTING,SETTING,...  an interface, as an [[interface]] table; may be repeated
//	ssi.name= ssi.addr= ssi.listen= ssi.log_level= ssi.classes=A,B ssi.capable=
//	ssi.interconnect=A,B ssi.time=SERVER,SERVER
//
// The settings of ssi.net are name, mac, driver, address, gateway, dns, mtu,
// role, vlan (its id), parent, bond (its mode), member, miimon, primary and
// lacp_rate, each as NAME=VALUE; address, dns and member may be repeated.
// name=boot stands for the interface the machine booted from; so does an
// ssi.net that says nothing else which interface it is about.
//
// Without ssi.net the interface it booted from gets its address by DHCP and is
// the interconnect; when that is unknown, every interface is asked.
func FromParams(words []string) (Config, error) {
	fail := func(key string, err error) (Config, error) {
		return Config{}, &Error{File: "kernel command line", Text: key + ": " + err.Error()}
	}
	c := Default()
	boot := ""
	var nets []string
	for _, word := range words[:min(len(words), maxParams)] {
		key, value, _ := strings.Cut(word, "=")
		var err error
		switch key {
		case "BOOTIF", "ssi.bootif":
			boot, err = bootMAC(value)
		case "ssi.net":
			nets = append(nets, value)
		case "ssi.name":
			c.Name = value
		case "ssi.addr":
			c.Addr = value
		case "ssi.listen":
			c.Listen = value
		case "ssi.log_level":
			c.LogLevel = value
		case "ssi.classes":
			c.Classes = list(value)
		case "ssi.capable":
			if c.Capable, err = strconv.ParseBool(value); err != nil {
				err = fmt.Errorf("%q: it is true or false", value)
			}
		case "ssi.interconnect":
			c.Interconnect = list(value)
		case "ssi.time":
			c.Time.Servers = list(value)
		}
		if err != nil {
			return fail(key, err)
		}
	}
	for _, value := range nets {
		n, err := parseNet(value, boot)
		if err != nil {
			return fail("ssi.net="+value, err)
		}
		c.Interfaces = append(c.Interfaces, n)
	}
	if len(nets) == 0 {
		c.Interfaces = []Interface{bootInterface(boot, len(c.Interconnect) == 0)}
	}
	if path, err := c.check(); err != nil {
		return fail(paramOf(path), err)
	}
	return c, nil
}

// bootInterface is how the interface a machine booted from is configured when
// nothing else is said.
func bootInterface(mac string, interconnect bool) Interface {
	if mac == "" {
		return Interface{Driver: "*", Address: []string{AddressDHCP}}
	}
	n := Interface{MAC: mac, Address: []string{AddressDHCP}}
	if interconnect {
		n.Role = RoleInterconnect
	}
	return n
}

// paramOf is how a command line calls the setting of a path.
func paramOf(path string) string {
	head, rest, table := strings.Cut(plain(path), ".")
	switch {
	case head == "interface" && table:
		return "ssi.net: " + rest
	case head == "interface":
		return "ssi.net"
	case head == "time":
		return "ssi.time"
	}
	return "ssi." + head
}

// bootMAC reads what a boot loader tells about the interface it used: a MAC
// address, with - or :, with or without its hardware type in front.
func bootMAC(s string) (string, error) {
	mac := strings.ToLower(strings.ReplaceAll(s, "-", ":"))
	if len(mac) == 20 {
		mac = strings.TrimPrefix(mac, "01:")
	}
	return mac, checkMAC(mac)
}

func list(s string) []string {
	return slices.DeleteFunc(strings.Split(s, ","), func(v string) bool { return v == "" })
}

// parseNet reads the settings of one ssi.net.
func parseNet(text, boot string) (Interface, error) {
	var n Interface
	var vlan VLAN
	var bond Bond
	once := map[string]bool{}
	for _, setting := range list(text) {
		key, value, found := strings.Cut(setting, "=")
		if !found {
			return n, fmt.Errorf("%q is no NAME=VALUE", setting)
		}
		if once[key] && key != "address" && key != "dns" && key != "member" {
			return n, fmt.Errorf("%s is there twice", key)
		}
		once[key] = true
		var err error
		switch key {
		case "name":
			n.Name = value
		case "mac":
			n.MAC = value
		case "driver":
			n.Driver = value
		case "address":
			n.Address = append(n.Address, value)
		case "gateway":
			n.Gateway = value
		case "dns":
			n.DNS = append(n.DNS, value)
		case "role":
			n.Role = value
		case "mtu":
			n.MTU, err = number10(value, 576, 65535)
		case "vlan":
			vlan.ID, err = number10(value, 1, 4094)
		case "parent":
			vlan.Parent = value
		case "bond":
			bond.Mode = value
		case "member":
			bond.Members = append(bond.Members, value)
		case "miimon":
			bond.Miimon, err = number10(value, 10, 100)
		case "primary":
			bond.Primary = value
		case "lacp_rate":
			bond.LACPRate = value
		default:
			return n, fmt.Errorf("there is no setting %q; the settings are: name, mac, driver, address, gateway, dns, mtu, role, vlan, parent, bond, member, miimon, primary, lacp_rate", key)
		}
		if err != nil {
			return n, fmt.Errorf("%s: %w", key, err)
		}
	}
	if once["vlan"] || once["parent"] {
		n.VLAN = &vlan
	}
	if once["bond"] || once["member"] {
		n.Bond = &bond
	}
	if n.Name == BootIface || n.Name == "" && n.MAC == "" && n.Driver == "" && n.VLAN == nil && n.Bond == nil {
		if boot == "" {
			return n, errors.New("it is about the interface the machine booted from, which the boot loader has not told (BOOTIF=): say name= or mac=")
		}
		n.Name, n.MAC = "", boot
	}
	return n, nil
}

func number10(s string, low, high int) (int, error) {
	v, err := strconv.Atoi(s)
	if err != nil || v < low || v > high {
		return 0, fmt.Errorf("%q: it is a number from %d to %d", s, low, high)
	}
	return v, nil
}
