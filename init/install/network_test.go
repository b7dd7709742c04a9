package install

import (
	"bytes"
	"errors"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ssi/internal/config"
)

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, p := range list {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func route(to, via string, metric int) Route {
	r := Route{To: netip.MustParsePrefix(to), Metric: metric}
	if via != "" {
		r.Via = netip.MustParseAddr(via)
	}
	return r
}

// What a machine has is what it is configured to have.
func TestTables(t *testing.T) {
	mac := func(n string) string { return "52:54:00:00:00:0" + n }
	dns := []netip.Addr{netip.MustParseAddr("9.9.9.9")}
	for name, c := range map[string]struct {
		links []Link
		host  string
		want  string
		notes []string
	}{
		"nothing":    {},
		"no address": {links: []Link{{Name: "eth0", MAC: mac("1"), MTU: 1500}}},
		"static": {
			links: []Link{{Name: "enp1s0", MAC: mac("1"), MTU: 9000, Addrs: prefixes("10.0.0.1/24", "2001:db8::1/64"), Routes: []Route{
				route("0.0.0.0/0", "10.0.0.254", 0), route("0.0.0.0/0", "10.0.0.253", 5), route("10.2.0.0/16", "10.0.0.253", 0), route("::/0", "fe80::1", 1024)}}},
			want: `
[[interface]]
name = "enp1s0"
mac = "52:54:00:00:00:01"
address = ["10.0.0.1/24", "2001:db8::1/64"]
gateway = "10.0.0.254"
dns = ["9.9.9.9"]
mtu = 9000
routes = [{to = "10.2.0.0/16", via = "10.0.0.253"}, {to = "::/0", via = "fe80::1"}]
role = "interconnect"
`},
		// What the server says it says again; the second interface is the one that was asked for.
		"dhcp and a second one": {
			host: "10.1.0.1",
			links: []Link{{Name: "eth0", MAC: mac("1"), MTU: 1500, DHCP: true, Routes: []Route{route("0.0.0.0/0", "192.168.1.1", 0), route("10.9.0.0/16", "192.168.1.2", 0)}},
				{Name: "eth1", MAC: mac("2"), MTU: 1500, Addrs: prefixes("10.1.0.1/24")}},
			want: `
[[interface]]
name = "eth0"
mac = "52:54:00:00:00:01"
address = ["dhcp"]

[[interface]]
name = "eth1"
mac = "52:54:00:00:00:02"
address = ["10.1.0.1/24"]
role = "interconnect"
`},
		// The interface of the better default route stands first, and it wins there.
		"two default routes": {
			links: []Link{{Name: "a", MAC: mac("1"), MTU: 1500, DHCP: true, Routes: []Route{route("0.0.0.0/0", "10.0.0.1", 600)}},
				{Name: "b", MAC: mac("2"), MTU: 1500, DHCP: true, Routes: []Route{route("0.0.0.0/0", "10.1.0.1", 100)}}},
			want: `
[[interface]]
name = "b"
mac = "52:54:00:00:00:02"
address = ["dhcp"]
role = "interconnect"

[[interface]]
name = "a"
mac = "52:54:00:00:00:01"
address = ["dhcp"]
`},
		"a VLAN on a bond": {
			links: []Link{
				{Name: "bond0.7", Kind: "vlan", Parent: "bond0", VLAN: 7, MTU: 1500, Addrs: prefixes("10.7.0.1/24")},
				{Name: "bond0", Kind: "bond", MTU: 1500, Bond: config.Bond{Mode: config.ActiveBackup, Miimon: 50, Primary: "eth1"}},
				{Name: "eth0", MAC: mac("1"), MTU: 1500, Master: "bond0"}, {Name: "eth1", MAC: mac("2"), MTU: 1500, Master: "bond0"}},
			host: "10.7.0.1",
			want: `
[[interface]]
name = "bond0"
[interface.bond]
mode = "active-backup"
members = ["52:54:00:00:00:01", "52:54:00:00:00:02"]
miimon = 50
primary = "52:54:00:00:00:02"

[[interface]]
name = "bond0.7"
address = ["10.7.0.1/24"]
role = "interconnect"
vlan = {id = 7, parent = "bond0"}
`},
		// The networks of containers are nobody's business; a bridge of the machine is said.
		"bridges": {
			links: []Link{{Name: "docker0", Kind: "bridge", MTU: 1500, Addrs: prefixes("172.17.0.1/16")},
				{Name: "br0", Kind: "bridge", MTU: 1500, Addrs: prefixes("10.0.0.1/24")}, {Name: "eth0", MAC: mac("1"), Master: "br0", MTU: 1500}},
			notes: []string{"br0, which has 10.0.0.1/24, is a bridge: ssi does not configure that, and it is missing once ssi is init"}},
		"what ssi cannot": {
			links: []Link{{Name: "wlan0", MAC: mac("1"), Wireless: true, MTU: 1500, DHCP: true},
				{Name: "bond0", Kind: "bond", Bond: config.Bond{Mode: "balance-rr"}, MTU: 1500, Addrs: prefixes("10.0.0.1/24")},
				{Name: "v", Kind: "vlan", Parent: "br0", VLAN: 7, MTU: 1500, Addrs: prefixes("10.1.0.1/24")}},
			notes: []string{"wlan0, which has an address by DHCP, is a wireless interface: ssi does not configure that, and it is missing once ssi is init",
				"bond0, which has 10.0.0.1/24, is a bond of the mode balance-rr: ssi does not configure that, and it is missing once ssi is init",
				"v, which has 10.1.0.1/24, is a VLAN on br0: ssi does not configure that, and it is missing once ssi is init"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := Network{Links: c.links, DNS: dns}
			tables, notes := n.tables(addrOf(c.host))
			text := tomlOf(tables)
			if diff := cmp.Diff(c.want, text); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(c.notes, notes); diff != "" {
				t.Error(diff)
			}
			got, err := config.Parse("ssi.toml", text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tables, got.Interfaces); diff != "" {
				t.Errorf("read again: %s", diff)
			}
		})
	}
}

// The configuration that is written has the network of now; one that is there is
// not edited, and its lack is told.
func TestInstallNetwork(t *testing.T) {
	const lines = "[[interface]]\nname = \"eth0\"\nmac = \"52:54:00:00:00:01\"\naddress = [\"10.0.0.1/24\"]\n"
	now := Network{Links: []Link{{Name: "eth0", MAC: "52:54:00:00:00:01", MTU: 1500, Addrs: prefixes("10.0.0.1/24")}}}
	install := func(root, addr string, n Network, err error) (string, error) {
		o := options(root)
		var out bytes.Buffer
		o.Out, o.Addr, o.Network = &out, addr, func() (Network, error) { return n, err }
		err = Install(t.Context(), o)
		return out.String(), err
	}
	said := func(out string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%q is not said:\n%s", w, out)
			}
		}
	}
	shown := strings.TrimSuffix(indent(lines), "\n")

	root := fakeRoot(t)
	out, err := install(root, "10.0.0.1:1985", now, nil)
	must(t, err)
	said(out, "keeps the network as it is now", shown+"\n    role = \"interconnect\"\n")
	if got := read(t, root, "etc/ssi/ssi.toml"); !strings.HasSuffix(got, lines+"role = \"interconnect\"\n") || !strings.HasPrefix(got, "# example\n") {
		t.Errorf("ssi.toml:\n%s", got)
	}
	// Again, with another address: it is the operator's.
	before := tree(t, root)
	out, err = install(root, "", Network{}, nil)
	must(t, err)
	if diff := cmp.Diff(before, tree(t, root)); diff != "" || strings.Contains(out, "note:") {
		t.Errorf("a second run: %s\n%s", out, diff)
	}
	must(t, Uninstall(t.Context(), undoOptions(root)))

	for _, c := range []struct {
		have string
		n    Network
		err  error
		want string
	}{
		{"log_level = \"warn\"\n", now, nil, "add these lines, which keep it as it is now:" + shown},
		{"", Network{}, nil, "has no address now"},
		{"", now, errors.New("no rtnetlink"), "how it is now could not be found out: no rtnetlink"},
		{"", Network{Links: []Link{{Name: "bond0", Kind: "bond", Bond: config.Bond{Mode: config.LACP}, Addrs: prefixes("10.0.0.1/24")}}}, nil, "cannot be kept: /etc/ssi/ssi.toml:"},
		{"[[interface]]\nname = \"eth0\"\n", Network{}, errors.New("not asked"), ""},
	} {
		root := fakeRoot(t)
		if c.have != "" {
			write(t, root, "etc/ssi/ssi.toml", c.have)
		}
		out, err := install(root, "", c.n, c.err)
		must(t, err)
		if said(out, c.want); c.want == "" && strings.Contains(out, "note:") {
			t.Errorf("%q: %s", c.have, out)
		}
		if want := orElse(c.have, "# example\n"); read(t, root, "etc/ssi/ssi.toml") != want {
			t.Errorf("ssi.toml is %q, want %q", read(t, root, "etc/ssi/ssi.toml"), want)
		}
	}

	// A configuration that keeps the node from starting is said before anything is done.
	root = fakeRoot(t)
	write(t, root, "etc/ssi/ssi.toml", "nmae = \"x\"\n")
	before = tree(t, root)
	if _, err = install(root, "", now, nil); err == nil || !strings.Contains(err.Error(), "nothing was changed: /etc/ssi/ssi.toml:1:1") {
		t.Errorf("a wrong configuration: %v", err)
	}
	if diff := cmp.Diff(before, tree(t, root)); diff != "" {
		t.Errorf("something was changed: %s", diff)
	}
}

// The kernel's network, read in a namespace of the test's own.
func TestReadNetworkNamespace(t *testing.T) {
	runtime.LockOSThread() // ends with the thread: it is never unlocked
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("skipped: a network namespace needs root: %v", err)
	}
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", MTU: 1400}, PeerName: "eth1"}))
	eth0, err := netlink.LinkByName("eth0")
	must(t, err)
	eth1, err := netlink.LinkByName("eth1")
	must(t, err)
	addr := func(l netlink.Link, text string, lifetime int) {
		t.Helper()
		a, err := netlink.ParseAddr(text)
		must(t, err)
		a.ValidLft, a.PreferedLft, a.Flags = lifetime, lifetime, unix.IFA_F_NODAD
		must(t, netlink.AddrAdd(l, a))
	}
	for _, l := range []netlink.Link{eth0, eth1} {
		must(t, netlink.LinkSetUp(l))
	}
	addr(eth0, "10.0.0.1/24", 0)
	addr(eth0, "2001:db8::1/64", 0)
	addr(eth1, "10.1.0.1/24", 600)
	addr(eth1, "2001:db8:1::1/64", 600)
	gw := netip.MustParseAddr("10.0.0.254")
	must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: gw.AsSlice(), Protocol: unix.RTPROT_STATIC, Priority: 7}))
	vlan := &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "eth0.7", ParentIndex: eth0.Attrs().Index}, VlanId: 7}
	if err := netlink.LinkAdd(vlan); err != nil {
		t.Logf("without a VLAN: %v", err)
	}
	n, err := ReadNetwork()
	must(t, err)
	got := map[string]Link{}
	for _, l := range n.Links {
		l.MAC = strings.Repeat("x", len(l.MAC))
		got[l.Name] = l
	}
	const mac = "xxxxxxxxxxxxxxxxx"
	want := map[string]Link{
		"eth0": {Name: "eth0", Kind: "veth", MAC: mac, MTU: 1400, Addrs: prefixes("10.0.0.1/24", "2001:db8::1/64"), Routes: []Route{route("0.0.0.0/0", "10.0.0.254", 7)}},
		"eth1": {Name: "eth1", Kind: "veth", MAC: mac, MTU: 1400, DHCP: true},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func TestResolvServers(t *testing.T) {
	text := "# x\nnameserver 127.0.0.53\nnameserver\nnameserver fe80::1%eth0\n nameserver 9.9.9.9 x\nnameserver 2001:db8::1\nsearch a\nnameserver 1.1.1.1\nnameserver 8.8.8.8\n"
	want := []string{"9.9.9.9", "2001:db8::1", "1.1.1.1"}
	var got []string
	for _, a := range resolvServers([]byte(text)) {
		got = append(got, a.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func FuzzResolvServers(f *testing.F) {
	f.Add([]byte("nameserver 10.0.0.1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		servers := resolvServers(text)
		table := config.Interface{Name: "eth0", MAC: "52:54:00:00:00:01", Address: []string{"10.0.0.1/24"}}
		for _, s := range servers {
			table.DNS = append(table.DNS, s.String())
		}
		if _, err := config.Parse("ssi.toml", tomlOf([]config.Interface{table})); err != nil {
			t.Fatalf("%q: %v", servers, err)
		}
	})
}
