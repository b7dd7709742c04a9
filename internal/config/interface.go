package config

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Limits of what one file may ask of the network.
const (
	MaxInterfaces = 64 // [[interface]] tables
	MaxAddresses  = 16 // of an interface
	MaxRoutes     = 64 // of an interface
	MaxMembers    = 16 // of a bond
	MaxDNS        = 3  // name servers of an interface: more are never asked (resolv.conf(5), MAXNS)
	// MaxInterfaceName is how many bytes the name of an interface may have
	// (IFNAMSIZ without the NUL).
	MaxInterfaceName = 15
)

// Words of the settings of an interface.
const (
	AddressDHCP      = "dhcp"          // the address comes from a DHCP server
	AddressNone      = "none"          // the interface shall have no address
	RoleInterconnect = "interconnect"  // the nodes talk over this interface
	ActiveBackup     = "active-backup" // bond: one member works, the others wait
	LACP             = "802.3ad"       // bond: all members work, agreed with the switch

	// DefaultMiimon is how often a bond looks at the links of its members, in ms.
	DefaultMiimon = 100
)

// Interface is one [[interface]]: how one network interface shall be. It is
// found by its name, by its MAC address or by its driver; with one of the last
// two, name renames it. A VLAN or a bond is created.
type Interface struct {
	Name    string   `toml:"name"`    // of the interface
	MAC     string   `toml:"mac"`     // finds it by hardware address
	Driver  string   `toml:"driver"`  // finds it by the name of its driver; * and ? as in path.Match; without name it means all that match
	Address []string `toml:"address"` // CIDR, "dhcp", or "none" alone; empty leaves addresses as they are
	Gateway string   `toml:"gateway"` // of the default route; "" with dhcp: what the server says
	DNS     []string `toml:"dns"`     // name servers; empty with dhcp: what the server says
	MTU     int      `toml:"mtu" min:"576" max:"65535"`
	Routes  []Route  `toml:"routes"`
	VLAN    *VLAN    `toml:"vlan"` // creates it as a VLAN (IEEE 802.1Q)
	Bond    *Bond    `toml:"bond"` // creates it as a bond
	Role    string   `toml:"role"` // "" or "interconnect"
}

// Route is a static route.
type Route struct {
	To  string `toml:"to"`  // CIDR; 0.0.0.0/0 and ::/0 are default routes
	Via string `toml:"via"` // the router; "" is directly on the link
}

// VLAN makes an interface a tagged part of another.
type VLAN struct {
	ID     int    `toml:"id" min:"1" max:"4094"`
	Parent string `toml:"parent"` // name of the interface that carries it
}

// Bond makes several interfaces one (kernel: Documentation/networking/bonding.rst).
type Bond struct {
	Mode     string   `toml:"mode"`                      // active-backup (also when empty) or 802.3ad
	Members  []string `toml:"members"`                   // names or MAC addresses, in this order
	Miimon   int      `toml:"miimon" min:"10" max:"100"` // ms; 0 is DefaultMiimon
	Primary  string   `toml:"primary"`                   // the member that works whenever it can; active-backup only
	LACPRate string   `toml:"lacp_rate"`                 // slow (30 s) or fast (1 s, also when empty); 802.3ad only
}

// Interval is how often the bond looks at its links, in milliseconds.
func (b Bond) Interval() int {
	if b.Miimon == 0 {
		return DefaultMiimon
	}
	return b.Miimon
}

// LACP reports whether all members work at once.
func (b Bond) LACP() bool { return b.Mode == LACP }

// SlowLACP reports whether the partner is asked for a message every 30 s only.
func (b Bond) SlowLACP() bool { return b.LACPRate == "slow" }

// DHCP reports whether the interface gets an address from a DHCP server.
func (n Interface) DHCP() bool { return slices.Contains(n.Address, AddressDHCP) }

// NoAddress reports whether all addresses shall be removed.
func (n Interface) NoAddress() bool { return slices.Contains(n.Address, AddressNone) }

// Prefixes are the fixed addresses of the interface with the lengths of their
// networks.
func (n Interface) Prefixes() []netip.Prefix {
	var out []netip.Prefix
	for _, a := range n.Address {
		if p, err := netip.ParsePrefix(a); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// Label is what messages call the interface.
func (n Interface) Label() string {
	switch {
	case n.Name != "":
		return n.Name
	case n.MAC != "":
		return n.MAC
	}
	return "driver " + n.Driver
}

// Interconnects lists the names or MAC addresses of the interfaces over which
// the nodes talk, the preferred one first: the setting interconnect, or the
// interfaces of that role. Empty leaves the choice to the routing table.
func (c Config) Interconnects() []string {
	if len(c.Interconnect) > 0 {
		return c.Interconnect
	}
	var out []string
	for _, n := range c.Interfaces {
		if n.Role == RoleInterconnect {
			out = append(out, n.Label())
		}
	}
	return out
}

// checkNetwork returns the first setting of the interfaces that is wrong.
func (c Config) checkNetwork() (path string, err error) {
	if len(c.Interfaces) > MaxInterfaces {
		return "interface", fmt.Errorf("%d of them; at most %d are allowed", len(c.Interfaces), MaxInterfaces)
	}
	for i, n := range c.Interfaces {
		key, err := n.check()
		if err == nil {
			key, err = n.checkAgainst(c.Interfaces[:i], c.Interfaces[i+1:])
		}
		if err != nil {
			return join(fmt.Sprintf("interface[%d]", i), key), err
		}
	}
	for i, name := range c.Interconnect {
		path := fmt.Sprintf("interconnect[%d]", i)
		if err := checkInterfaceName(name); err != nil {
			return path, err
		}
		if slices.Contains(c.Interconnect[:i], name) {
			return path, fmt.Errorf("%s is there twice", name)
		}
	}
	for i, n := range c.Interfaces {
		if n.Role != "" && len(c.Interconnect) > 0 {
			return fmt.Sprintf("interface[%d].role", i), fmt.Errorf("interconnect = [...] says already which interfaces those are; use one of the two")
		}
	}
	return "", nil
}

// check looks at one interface alone.
func (n Interface) check() (key string, err error) {
	checks := []struct {
		key string
		err error
	}{
		{"name", optional(n.Name, checkInterfaceName)},
		{"", n.checkMatch()},
		{"mac", optional(n.MAC, checkMAC)},
		{"driver", optional(n.Driver, checkGlob)},
		{"address", n.checkAddresses()},
		{"gateway", n.checkGateway()},
		{"dns", checkDNS(n.DNS)},
		{"routes", n.checkRoutes()},
		{"role", n.checkRole()},
	}
	for _, check := range checks {
		if check.err != nil {
			return check.key, check.err
		}
	}
	if n.VLAN != nil {
		if key, err := n.VLAN.check(n.Name); err != nil {
			return join("vlan", key), err
		}
	}
	if n.Bond != nil {
		if key, err := n.Bond.check(n.Name); err != nil {
			return join("bond", key), err
		}
	}
	return "", nil
}

func (n Interface) checkMatch() error {
	switch {
	case n.VLAN != nil && n.Bond != nil:
		return fmt.Errorf("it is a vlan or a bond, not both: give the vlan an [[interface]] of its own with the bond as its parent")
	case (n.VLAN != nil || n.Bond != nil) && n.Name == "":
		return fmt.Errorf("a vlan or bond is created and needs a name")
	case (n.VLAN != nil || n.Bond != nil) && (n.MAC != "" || n.Driver != ""):
		return fmt.Errorf("a vlan or bond is created: mac and driver, which find an interface, do not go with it")
	case n.MAC != "" && n.Driver != "":
		return fmt.Errorf("mac and driver both find an interface: give one of them")
	case n.Name == "" && n.MAC == "" && n.Driver == "":
		return fmt.Errorf("which interface is it? give name, mac or driver")
	case n.Name == "" && n.Driver != "" && (len(n.Prefixes()) > 0 || n.Role != ""):
		return fmt.Errorf("a driver without name means every interface of that driver: a fixed address or a role needs name or mac")
	}
	return nil
}

func (n Interface) checkAddresses() error {
	if len(n.Address) > MaxAddresses {
		return fmt.Errorf("%d addresses; at most %d are allowed", len(n.Address), MaxAddresses)
	}
	for i, a := range n.Address {
		if slices.Contains(n.Address[:i], a) {
			return fmt.Errorf("%q is there twice", a)
		}
		switch a {
		case AddressDHCP:
		case AddressNone:
			if len(n.Address) > 1 {
				return fmt.Errorf(`"none" stands alone`)
			}
		default:
			p, err := netip.ParsePrefix(a)
			if err != nil || p.Addr().Is4In6() {
				return fmt.Errorf(`%q: an address is written with the length of its network, such as "10.0.0.1/24"; or "dhcp", or "none"`, a)
			}
			if err := checkHost(p.Addr()); err != nil {
				return err
			}
			if p.Addr().Is4() && p.Bits() < 31 && p.Addr() == p.Masked().Addr() {
				return fmt.Errorf("%q is the address of the network; a host has another one in it", a)
			}
		}
	}
	return nil
}

// checkHost refuses addresses that no interface of a host can have.
func checkHost(a netip.Addr) error {
	if a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return fmt.Errorf("%s is no address of one host on a network", a)
	}
	return nil
}

func (n Interface) checkGateway() error {
	if n.Gateway == "" {
		return nil
	}
	if err := checkIP(n.Gateway); err != nil {
		return err
	}
	g := netip.MustParseAddr(n.Gateway)
	if n.DHCP() || g.IsLinkLocalUnicast() {
		return nil
	}
	for _, p := range n.Prefixes() {
		if p.Addr() == g {
			return fmt.Errorf("%s is the interface itself", g)
		}
		if p.Contains(g) {
			return nil
		}
	}
	return fmt.Errorf("%s is in no network of address = %q, so it cannot be reached", g, n.Address)
}

func checkIP(s string) error {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return fmt.Errorf("%q is no IP address", s)
	}
	return checkHost(a)
}

func checkDNS(servers []string) error {
	if len(servers) > MaxDNS {
		return fmt.Errorf("%d name servers; more than %d are never asked (resolv.conf(5))", len(servers), MaxDNS)
	}
	for _, s := range servers {
		// A name server on this machine is usual.
		if a, err := netip.ParseAddr(s); err == nil && a.IsLoopback() {
			continue
		}
		if err := checkIP(s); err != nil {
			return err
		}
	}
	return nil
}

func (n Interface) checkRoutes() error {
	if len(n.Routes) > MaxRoutes {
		return fmt.Errorf("%d routes; at most %d are allowed", len(n.Routes), MaxRoutes)
	}
	for i, r := range n.Routes {
		to, err := netip.ParsePrefix(r.To)
		if err != nil || to.Addr().Is4In6() {
			return fmt.Errorf(`to = %q: a route leads to a network, such as "10.2.0.0/16"`, r.To)
		}
		if to != to.Masked() {
			return fmt.Errorf("to = %q: bits behind the network are set; %s is meant?", r.To, to.Masked())
		}
		if slices.ContainsFunc(n.Routes[:i], func(o Route) bool { return o.To == r.To }) {
			return fmt.Errorf("there are two routes to %s", r.To)
		}
		if n.Gateway != "" && to.Bits() == 0 && to.Addr().Is4() == netip.MustParseAddr(n.Gateway).Is4() {
			return fmt.Errorf("gateway sets the route to %s already", r.To)
		}
		if r.Via == "" {
			continue
		}
		if err := checkIP(r.Via); err != nil {
			return fmt.Errorf("via: %w", err)
		}
		if via := netip.MustParseAddr(r.Via); via.Is4() != to.Addr().Is4() {
			return fmt.Errorf("via = %q is not of the kind of %s", r.Via, r.To)
		}
	}
	return nil
}

func (n Interface) checkRole() error {
	switch {
	case n.Role != "" && n.Role != RoleInterconnect:
		return fmt.Errorf("%q is no role; the roles are: %s", n.Role, RoleInterconnect)
	case n.Role != "" && n.NoAddress():
		return fmt.Errorf(`an interconnect needs an address, and address = ["none"] is set`)
	}
	return nil
}

func (v VLAN) check(name string) (key string, err error) {
	if v.ID == 0 {
		return "", fmt.Errorf("it needs an id from 1 to 4094")
	}
	if err := checkInterfaceName(v.Parent); err != nil {
		return "parent", err
	}
	if v.Parent == name {
		return "parent", fmt.Errorf("%s cannot carry itself", name)
	}
	return "", nil
}

func (b Bond) check(name string) (key string, err error) {
	if b.Mode != "" && b.Mode != ActiveBackup && b.Mode != LACP {
		return "mode", fmt.Errorf("%q is no mode; the modes are: %s, %s", b.Mode, ActiveBackup, LACP)
	}
	if len(b.Members) == 0 {
		return "", fmt.Errorf("it needs members: the interfaces that it joins")
	}
	if len(b.Members) > MaxMembers {
		return "members", fmt.Errorf("%d members; at most %d are allowed", len(b.Members), MaxMembers)
	}
	for i, m := range b.Members {
		if checkMAC(m) != nil {
			if err := checkInterfaceName(m); err != nil {
				return "members", err
			}
		}
		if m == name {
			return "members", fmt.Errorf("%s cannot be its own member", name)
		}
		if slices.ContainsFunc(b.Members[:i], func(o string) bool { return strings.EqualFold(o, m) }) {
			return "members", fmt.Errorf("%s is there twice", m)
		}
	}
	switch {
	case b.Primary != "" && b.LACP():
		return "primary", fmt.Errorf("all members of %s work at once: primary goes with %s only", LACP, ActiveBackup)
	case b.Primary != "" && !slices.Contains(b.Members, b.Primary):
		return "primary", fmt.Errorf("%q is none of the members %q", b.Primary, b.Members)
	case b.LACPRate != "" && !b.LACP():
		return "lacp_rate", fmt.Errorf("it goes with mode = %q only", LACP)
	case b.LACPRate != "" && b.LACPRate != "slow" && b.LACPRate != "fast":
		return "lacp_rate", fmt.Errorf("%q: it is slow or fast", b.LACPRate)
	}
	return "", nil
}

// checkAgainst looks at an interface beside the others of the file.
func (n Interface) checkAgainst(before, after []Interface) (key string, err error) {
	for _, o := range before {
		if n.Name != "" && n.Name == o.Name {
			return "name", fmt.Errorf("there is another [[interface]] of the name %s", n.Name)
		}
		if n.MAC != "" && strings.EqualFold(n.MAC, o.MAC) {
			return "mac", fmt.Errorf("there is another [[interface]] of the address %s", n.MAC)
		}
		if n.Bond == nil || o.Bond == nil {
			continue
		}
		for _, m := range n.Bond.Members {
			if slices.ContainsFunc(o.Bond.Members, func(other string) bool { return strings.EqualFold(other, m) }) {
				return "bond.members", fmt.Errorf("%s is a member of %s already", m, o.Name)
			}
		}
	}
	for _, o := range slices.Concat(before, after) {
		if n.Bond == nil || !slices.Contains(n.Bond.Members, o.Name) && !slices.ContainsFunc(n.Bond.Members, func(m string) bool { return o.MAC != "" && strings.EqualFold(m, o.MAC) }) {
			continue
		}
		switch {
		case o.Bond != nil || o.VLAN != nil:
			return "bond.members", fmt.Errorf("%s is no hardware interface: a bond joins those only", o.Name)
		case len(o.Address) > 0 || o.Gateway != "" || len(o.Routes) > 0 || o.Role != "":
			return "bond.members", fmt.Errorf("%s has addresses, routes or a role of its own: a member has none, the bond has them", o.Label())
		}
	}
	// A carrier stands before what it carries: then no interfaces can carry each other.
	if n.VLAN != nil && slices.ContainsFunc(after, func(o Interface) bool { return o.Name == n.VLAN.Parent }) {
		return "vlan.parent", fmt.Errorf("the [[interface]] of %s must stand before that of %s, which it carries", n.VLAN.Parent, n.Name)
	}
	return "", nil
}

// checkInterfaceName refuses what the kernel does not take as the name of an
// interface (net/core/dev.c, dev_valid_name) and what others could not handle.
func checkInterfaceName(name string) error {
	bad := func(r rune) bool {
		return r == '/' || r == ':' || r == '%' || unicode.IsSpace(r) || !unicode.IsPrint(r)
	}
	if name == "" || len(name) > MaxInterfaceName || name == "." || name == ".." || strings.ContainsFunc(name, bad) {
		return fmt.Errorf("%q is no name of an interface: those have 1 to %d characters, none of them /, :, %% or white space", name, MaxInterfaceName)
	}
	if name == "lo" {
		return fmt.Errorf("lo is the loopback interface: it needs no settings")
	}
	return nil
}

func checkMAC(s string) error {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 || !regexp.MustCompile(`^..(:..){5}$`).MatchString(s) {
		return fmt.Errorf("%q is no MAC address, such as 52:54:00:12:34:56", s)
	}
	if hw[0]&1 != 0 || hw.String() == "00:00:00:00:00:00" {
		return fmt.Errorf("%q is no MAC address of one interface", s)
	}
	return nil
}

func checkGlob(s string) error {
	if _, err := path.Match(s, ""); err != nil || len(s) > 64 {
		return fmt.Errorf("%q is no pattern: * stands for any text, ? for one character, [...] for one of several", s)
	}
	return nil
}
