package netconf

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ssi/internal/config"
)

func parse(t testing.TB, text string) []config.Interface {
	t.Helper()
	c, err := config.Parse("test", text)
	if err != nil {
		t.Fatal(err)
	}
	return c.Interfaces
}

func addrs(prefixes ...string) []Addr {
	var out []Addr
	for _, p := range prefixes {
		out = append(out, Addr{Prefix: netip.MustParsePrefix(p)})
	}
	return out
}

func nic(index int, name string, addresses ...string) Link {
	return Link{Index: index, Name: name, Driver: "virtio_net", MAC: "52:54:00:00:00:0" + string(rune('0'+index)), MTU: 1500, Carrier: true, Addrs: addrs(addresses...)}
}

func up(l Link) Link { l.Up = true; return l }

// What a plan does, in words, and that the plan after it is empty.
func TestPlan(t *testing.T) {
	now := time.Unix(1e9, 0)
	lease := Lease{Addr: netip.MustParsePrefix("10.0.0.9/24"), Router: netip.MustParseAddr("10.0.0.254"), Start: now, Length: time.Hour}
	bond0 := Link{Index: 5, Name: "bond0", Kind: "bond", MTU: 1500, Bond: BondOptions{Mode: "balance-rr"}}
	const ic0 = "[[interface]]\nname = \"ic0\"\naddress = [\"10.1.0.1/24\"]\n[interface.bond]\nmembers = [\"eth1\", \"eth2\"]\n"
	for _, c := range []struct {
		name, text string
		links      []Link
		routes     []Route
		leases     map[string]Lease
		inUse      string
		want       []string
		waits      string // part of what is waited for
	}{
		{name: "nothing configured", links: []Link{nic(1, "eth0", "10.9.0.1/24")}},
		{
			name: "static", text: "[[interface]]\nname = \"eth0\"\naddress = [\"10.0.0.1/24\", \"fd00::1/64\"]\ngateway = \"10.0.0.254\"\nmtu = 9000\nroutes = [{to = \"10.2.0.0/16\", via = \"10.0.0.253\"}]",
			links: []Link{nic(1, "eth0", "10.9.0.1/24"), nic(2, "eth1", "10.9.1.1/24")},
			want: []string{"eth0: set mtu 9000", "eth0: up", "eth0: remove address 10.9.0.1/24", "eth0: add address 10.0.0.1/24", "eth0: add address fd00::1/64",
				"eth0: add route to 0.0.0.0/0 via 10.0.0.254", "eth0: add route to 10.2.0.0/16 via 10.0.0.253"},
		},
		{
			name: "addresses not configured stay", text: "[[interface]]\nname = \"eth0\"", links: []Link{nic(1, "eth0", "10.9.0.1/24")},
			want: []string{"eth0: up"},
		},
		{
			name: "in use", text: "[[interface]]\nname = \"eth0\"\naddress = [\"10.0.0.1/24\"]", links: []Link{up(nic(1, "eth0", "10.9.0.1/24"))}, inUse: "10.9.0.1",
			want: []string{"eth0: add address 10.0.0.1/24"}, waits: "10.9.0.1/24 is not configured any more and stays while the nodes talk over it",
		},
		{
			name: "none", text: "[[interface]]\nname = \"eth0\"\naddress = [\"none\"]", links: []Link{up(nic(1, "eth0", "10.9.0.1/24"))}, inUse: "10.9.0.1",
			want: []string{"eth0: remove address 10.9.0.1/24"},
		},
		{
			name: "the first address takes its network along", text: "[[interface]]\nname = \"eth0\"\naddress = [\"10.0.0.2/24\"]", links: []Link{up(nic(1, "eth0", "10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24"))},
			want: []string{"eth0: remove address 10.0.0.1/24", "eth0: add address 10.0.0.2/24"},
		},
		{
			name: "dhcp not heard", text: "[[interface]]\ndriver = \"virtio*\"\naddress = [\"dhcp\"]", links: []Link{nic(1, "eth0"), nic(2, "eth1"), {Index: 3, Name: "br0", Kind: "bridge", Driver: "virtio"}},
			want: []string{"eth0: up", "eth1: up"},
		},
		{
			name: "dhcp", text: "[[interface]]\nname = \"eth0\"\naddress = [\"dhcp\"]", links: []Link{up(nic(1, "eth0", "10.0.0.7/24"))}, leases: map[string]Lease{"eth0": lease},
			want: []string{"eth0: remove address 10.0.0.7/24", "eth0: add address 10.0.0.9/24 for 3600 s", "eth0: add route to 0.0.0.0/0 via 10.0.0.254"},
		},
		{
			name: "dhcp lost", text: "[[interface]]\nname = \"eth0\"\naddress = [\"dhcp\"]",
			links:  []Link{up(Link{Index: 1, Name: "eth0", Addrs: []Addr{{Prefix: lease.Addr, Lifetime: 2}}})},
			leases: map[string]Lease{"eth0": {}}, want: []string{"eth0: remove address 10.0.0.9/24"},
		},
		{
			name: "a daemon started anew keeps its lease", text: "[[interface]]\nname = \"eth0\"\naddress = [\"dhcp\"]",
			links:  []Link{up(Link{Index: 1, Name: "eth0", Addrs: []Addr{{Prefix: lease.Addr, Lifetime: 600}}})},
			routes: []Route{{To: netip.MustParsePrefix("0.0.0.0/0"), Via: lease.Router, Link: "eth0", Metric: 1024}},
		},
		{
			name: "bond", text: ic0, links: []Link{nic(1, "eth1"), up(nic(2, "eth2", "10.9.0.1/24"))},
			want: []string{"ic0: create bond mode active-backup miimon 100", "eth1: join ic0", "eth2: remove address 10.9.0.1/24", "eth2: down", "eth2: join ic0", "ic0: up", "ic0: add address 10.1.0.1/24"},
		},
		{
			name: "bond: a member is missing", text: ic0, links: []Link{nic(1, "eth1")},
			want: []string{"ic0: create bond mode active-backup miimon 100", "eth1: join ic0", "ic0: up", "ic0: add address 10.1.0.1/24"}, waits: "its member eth2 is missing",
		},
		{
			name: "bond: bond0 of the module", text: strings.ReplaceAll(ic0, "ic0", "bond0") + "mode = \"802.3ad\"\nmiimon = 50", links: []Link{up(bond0), nic(1, "eth1"), nic(2, "eth2")},
			want: []string{"bond0: down", "bond0: set bond mode 802.3ad miimon 50 lacp_rate fast", "eth1: join bond0", "eth2: join bond0", "bond0: up", "bond0: add address 10.1.0.1/24"},
		},
		{
			name: "bond: primary, by MAC", text: "[[interface]]\nname = \"ic0\"\n[interface.bond]\nmembers = [\"52:54:00:00:00:01\", \"eth2\"]\nprimary = \"52:54:00:00:00:01\"", links: []Link{nic(1, "eth1"), nic(2, "eth2")},
			want: []string{"ic0: create bond mode active-backup miimon 100", "eth1: join ic0", "eth2: join ic0", "ic0: set bond primary eth1", "ic0: up"},
		},
		{
			name: "bond: its member is in use", text: ic0, links: []Link{nic(1, "eth1"), up(nic(2, "eth2", "10.9.0.1/24"))}, inUse: "10.9.0.1",
			want: []string{"ic0: create bond mode active-backup miimon 100", "eth1: join ic0", "ic0: up", "ic0: add address 10.1.0.1/24"}, waits: "eth2 does not join while the nodes talk over it",
		},
		{
			name: "vlan", text: "[[interface]]\nname = \"v7\"\nvlan = {id = 7, parent = \"eth0\"}\naddress = [\"10.7.0.1/24\"]", links: []Link{nic(1, "eth0")},
			want: []string{"v7: create vlan 7 on eth0", "eth0: up", "v7: up", "v7: add address 10.7.0.1/24"},
		},
		{
			name: "vlan: of another id", text: "[[interface]]\nname = \"v7\"\nvlan = {id = 7, parent = \"eth0\"}", links: []Link{up(nic(1, "eth0")), {Index: 2, Name: "v7", Kind: "vlan", VLAN: 8, Parent: "eth0"}},
			want: []string{"v7: delete", "v7: create vlan 7 on eth0", "v7: up"},
		},
		{
			name: "vlan: no parent", text: "[[interface]]\nname = \"v7\"\nvlan = {id = 7, parent = \"eth0\"}", waits: "the interface eth0, which carries it, is missing",
		},
		{
			name: "names exchanged", text: "[[interface]]\nname = \"eth1\"\nmac = \"52:54:00:00:00:01\"\n[[interface]]\nname = \"eth0\"\nmac = \"52:54:00:00:00:02\"", links: []Link{nic(1, "eth0"), up(nic(2, "eth1"))},
			want: []string{"eth1: down", "eth1: rename ssiren2", "eth0: rename eth1", "ssiren2: rename eth0", "eth1: up", "eth0: up"},
		},
		{
			name: "name taken", text: "[[interface]]\nname = \"eth1\"\nmac = \"52:54:00:00:00:01\"", links: []Link{nic(1, "eth0"), nic(2, "eth1")},
			want: []string{"eth0: up"}, waits: "eth0 cannot get the name eth1",
		},
		{name: "no hardware", text: "[[interface]]\nname = \"eth0\"", waits: "this machine has no network interface: is the module of its driver loaded?"},
		{name: "another MAC", text: "[[interface]]\nmac = \"52:54:00:00:00:09\"", links: []Link{nic(1, "eth0")}, waits: "no interface has the address 52:54:00:00:00:09; there are eth0 (52:54:00:00:00:01, virtio_net)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := Input{Interfaces: parse(t, c.text), Leases: c.leases, Now: now, State: State{Links: c.links, Routes: c.routes}}
			if c.inUse != "" {
				in.InUse = []netip.Addr{netip.MustParseAddr(c.inUse)}
			}
			plan := MakePlan(in)
			var got []string
			for _, op := range plan.Ops {
				got = append(got, op.String())
				in.State.apply(op)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			waits := ""
			for _, w := range plan.Waits {
				waits += w
			}
			if !strings.Contains(waits, c.waits) || c.waits == "" && waits != "" {
				t.Errorf("waits for %q, want %q", waits, c.waits)
			}
			if again := MakePlan(in); len(again.Ops) > 0 {
				t.Errorf("the plan after it is not empty: %v", again.Ops)
			}
		})
	}
}
