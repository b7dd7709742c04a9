package config

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Mistakes in tables name the line of the right table.
func TestNetworkMistakes(t *testing.T) {
	const eth0 = "[[interface]]\nname = \"eth0\"\n" // two lines
	for _, c := range []struct{ text, where, says string }{
		{eth0 + "[[interface]]\n  mtu = 10\nname = \"eth1\"", "f:4:3: ", "interface.mtu: 10: it is from 576 to 65535"},
		{eth0 + "mtu = 1500\n[[interface]]\nname = \"eth1\"\nmtu = \"big\"", "f:6:1: ", "interface.mtu: it must be a whole number, not a text"},
		{eth0 + "mtu = 1.5\n[[interface]]\nname = \"eth1\"\nmtu = 9000", "f:3:1: ", "interface.mtu: it must be a whole number"},
		{eth0 + "adress = []", "f:3:1: ", `there is no setting "adress" in interface; its settings are: name, mac`},
		{eth0 + "address = \"dhcp\"", "f:3:1: ", "it must be a list in [ ], not a text"},
		{eth0 + "address = [\n  \"10.0.0.1/24\",\n  7]", "f:5:3: ", "interface.address: it must be a text in quotes"},
		{eth0 + "address = [\"10.0.0.1\"]", "f:3:1: ", `such as "10.0.0.1/24"; or "dhcp", or "none"`},
		{eth0 + "address = [\"10.0.0.0/24\"]", "f:3:1: ", "the address of the network"},
		{eth0 + "address = [\"127.0.0.1/8\"]", "f:3:1: ", "no address of one host"},
		{eth0 + "address = [\"none\", \"dhcp\"]", "f:3:1: ", `"none" stands alone`},
		{eth0 + "address = [\"10.0.0.1/24\"]\ngateway = \"10.0.1.1\"", "f:4:1: ", "is in no network of"},
		{eth0 + "dns = [\"a\"]", "f:3:1: ", `"a" is no IP address`},
		{eth0 + "dns = [\"1.1.1.1\", \"1.1.1.2\", \"1.1.1.3\", \"1.1.1.4\"]", "f:3:1: ", "resolv.conf(5)"},
		{eth0 + "routes = [{to = \"10.2.3.4/16\"}]", "f:3:1: ", "10.2.0.0/16 is meant?"},
		{eth0 + "routes = [{to = \"::/0\", via = \"10.0.0.1\"}]", "f:3:1: ", "is not of the kind"},
		{eth0 + "role = \"storage\"", "f:3:1: ", "the roles are: interconnect"},
		{eth0 + "[[interface]]\nname = \"eth0\"", "f:4:1: ", "another [[interface]] of the name eth0"},
		{"[[interface]]\nmtu = 9000", "f:1:3: ", "which interface is it?"},
		{"[[interface]]\nmac = \"1:2\"", "f:2:1: ", "no MAC address"},
		{"[[interface]]\nmac = \"01:00:5e:00:00:01\"", "f:2:1: ", "no MAC address of one interface"},
		{"[[interface]]\ndriver = \"e[\"", "f:2:1: ", "no pattern"},
		{"[[interface]]\ndriver = \"*\"\naddress = [\"10.0.0.1/24\"]", "f:1:3: ", "needs name or mac"},
		{"[[interface]]\nname = \"a name too long for it\"", "f:2:1: ", "1 to 15 characters"},
		{"[[interface]]\nname = \"lo\"", "f:2:1: ", "loopback"},
		{eth0 + "[interface.vlan]\nid = 5000\nparent = \"x\"", "f:4:1: ", "interface.vlan.id: 5000: it is from 1 to 4094"},
		{eth0 + "vlan = {id = 7, parent = \"eth0\"}", "f:3:17: ", "cannot carry itself"},
		{"[[interface]]\nname = \"v\"\nvlan = {id = 7, parent = \"eth0\"}\n" + eth0, "f:3:17: ", "must stand before"},
		{"[[interface]]\nname = \"b\"\n[interface.bond]\nmode = \"rr\"\nmembers = [\"x\"]", "f:4:1: ", "the modes are: active-backup, 802.3ad"},
		{"[[interface]]\nname = \"b\"\n[interface.bond]\nmiimon = 0\nmembers = [\"x\"]", "f:4:1: ", "0: it is from 10 to 100"},
		{"[[interface]]\nname = \"b\"\n[interface.bond]\nmembers = [\"x\", \"x\"]", "f:4:1: ", "twice"},
		{"[[interface]]\nname = \"b\"\n[interface.bond]\nmembers = [\"x\"]\nprimary = \"y\"", "f:5:1: ", "none of the members"},
		{"[[interface]]\nname = \"b\"\n[interface.bond]\nmembers = [\"x\"]\nlacp_rate = \"fast\"", "f:5:1: ", "goes with mode = \"802.3ad\" only"},
		{eth0 + "address = [\"dhcp\"]\n[[interface]]\nname = \"b\"\n[interface.bond]\nmembers = [\"eth0\"]", "f:7:1: ", "eth0 has addresses"},
		{"interconnect = [\"a\"]\n" + eth0 + "role = \"interconnect\"", "f:4:1: ", "use one of the two"},
		{"interconnect = [\"a\", \"a\"]", "f:1:22: ", "twice"},
		{"[netboot]\nmode = \"on\"", "f:2:1: ", "it is one of pool, proxy, off"},
		{"[netboot]\nrange = \"10.0.0.9-10.0.0.1\"", "f:2:1: ", "ends before it begins"},
		{"[netboot]\nrange = \"10.0.0.1-10.9.0.1\"", "f:2:1: ", "more than 65536 addresses"},
		{"[netboot]\nmode = \"proxy\"\nrange = \"10.0.0.1-10.0.0.9\"", "f:3:1: ", `mode = "pool" only`},
		{"[netboot]\nrouter = \"10.0.0.5\"\nrange = \"10.0.0.1-10.0.0.9\"", "f:3:1: ", "holds the router"},
		{"[netboot]\nlease = \"1s\"", "f:2:1: ", "it is from 2m0s to 720h"},
		{"[netboot]\nkernel = \"../x\"", "f:2:1: ", "neither the version of a kernel"},
		{"[netboot]\ninclude = [\"bin/x\"]", "f:2:1: ", "an absolute path"},
		{"[netboot]\ncmdline = \"a\\nb\"", "f:2:1: ", "plain characters"},
		{"[netboot]\nunknown = \"kill\"", "f:2:1: ", "wait, ignore, approve"},
		{"[netboot]\nhttp_port = 0", "f:2:1: ", "from 1 to 65535"},
		{"[time]\nservers = [\"a b\"]", "f:2:1: ", "is no host"},
		{"[time]\nserver = \"a\"", "f:2:1: ", "its settings are: servers, serve"},
	} {
		_, err := Parse("f", c.text)
		if err == nil {
			t.Errorf("%q is taken", c.text)
			continue
		}
		if !strings.HasPrefix(err.Error(), c.where) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q:\n got %v\nwant %s… %s", c.text, err, c.where, c.says)
		}
	}
}

func TestFromParams(t *testing.T) {
	for _, c := range []struct {
		line string
		want []Interface
	}{
		{"quiet BOOTIF=01-52-54-00-77-00-02 ssi.node=3", []Interface{{MAC: "52:54:00:77:00:02", Address: []string{"dhcp"}, Role: "interconnect"}}},
		{"ssi.bootif=52:54:00:AA:00:02", []Interface{{MAC: "52:54:00:aa:00:02", Address: []string{"dhcp"}, Role: "interconnect"}}},
		{"", []Interface{{Driver: "*", Address: []string{"dhcp"}}}},
		{"ssi.bootif=52:54:00:77:00:02 ssi.net=address=10.0.0.2/24,gateway=10.0.0.1,mtu=9000", []Interface{{MAC: "52:54:00:77:00:02", Address: []string{"10.0.0.2/24"}, Gateway: "10.0.0.1", MTU: 9000}}},
		{"ssi.net=name=ic0,bond=active-backup,member=eth0,member=eth1,miimon=50,address=dhcp,role=interconnect ssi.net=name=ic0.7,vlan=7,parent=ic0", []Interface{
			{Name: "ic0", Bond: &Bond{Mode: "active-backup", Members: []string{"eth0", "eth1"}, Miimon: 50}, Address: []string{"dhcp"}, Role: "interconnect"},
			{Name: "ic0.7", VLAN: &VLAN{ID: 7, Parent: "ic0"}},
		}},
	} {
		got, err := FromParams(Words(c.line))
		if err != nil {
			t.Errorf("%q: %v", c.line, err)
			continue
		}
		if diff := cmp.Diff(c.want, got.Interfaces); diff != "" {
			t.Errorf("%q: %s", c.line, diff)
		}
	}
	got, err := FromParams(Words(`ssi.name=n7 ssi.classes=web,db ssi.capable=false ssi.time=10.0.0.1 ssi.log_level=debug x="a ssi.name=b"`))
	if err != nil || got.Name != "n7" || len(got.Classes) != 2 || got.Capable || got.LogLevel != "debug" || len(got.Time.Servers) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	for line, says := range map[string]string{
		"ssi.net=address=dhcp":               "has not told (BOOTIF=)",
		"ssi.bootif=zz":                      "ssi.bootif: \"zz\" is no MAC address",
		"ssi.net=name=eth0,adress=1":         `there is no setting "adress"; the settings are: name`,
		"ssi.net=name=eth0,mtu=big":          "mtu: \"big\": it is a number from 576",
		"ssi.net=name=eth0,name=eth1":        "name is there twice",
		"ssi.net=name=eth0,address=10.0.0.1": "ssi.net: address: ",
		"ssi.name=best":                      "ssi.name: ",
		"ssi.capable=maybe":                  "it is true or false",
	} {
		if _, err := FromParams(Words(line)); err == nil || !strings.HasPrefix(err.Error(), "kernel command line: ") || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %s", line, err, says)
		}
	}
}

func TestPool(t *testing.T) {
	for _, c := range []struct{ own, set, first, last, says string }{
		{"10.0.0.1/24", "", "10.0.0.128", "10.0.0.254", ""},
		{"10.0.0.254/24", "", "10.0.0.128", "10.0.0.253", ""},
		{"10.0.0.128/24", "", "10.0.0.129", "10.0.0.254", ""},
		{"10.0.0.1/8", "", "10.128.0.0", "10.128.15.255", ""},
		{"10.0.0.1/29", "", "10.0.0.4", "10.0.0.6", ""},
		{"10.0.0.1/30", "", "", "", "no IPv4 network with room"},
		{"fd00::1/64", "", "", "", "no IPv4 network with room"},
		{"10.0.0.1/24", "10.0.0.5 - 10.0.0.9", "10.0.0.5", "10.0.0.9", ""},
		{"10.0.0.1/24", "10.0.1.5-10.0.1.9", "", "", "is not within 10.0.0.0/24"},
	} {
		first, last, err := Netboot{Range: c.set}.Pool(netip.MustParsePrefix(c.own))
		if c.says != "" {
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%+v: %v", c, err)
			}
			continue
		}
		if err != nil || first.String() != c.first || last.String() != c.last {
			t.Errorf("%+v: %s-%s, %v", c, first, last, err)
		}
	}
}

func FuzzFromParams(f *testing.F) {
	f.Add("BOOTIF=01-52-54-00-77-00-02 ssi.net=address=dhcp,role=interconnect")
	f.Add("ssi.net=name=ic0,bond=802.3ad,member=eth0,lacp_rate=slow ssi.net=name=v,vlan=7,parent=ic0")
	f.Fuzz(func(t *testing.T, line string) {
		c, err := FromParams(Words(line))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "kernel command line: ") {
				t.Errorf("%v", err)
			}
			return
		}
		if path, err := c.check(); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if len(c.Interfaces) == 0 {
			t.Error("a machine without network")
		}
	})
}
