package netconf

import (
	"context"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

func TestWantedLinks(t *testing.T) {
	at := func(addr string) []Addr { return []Addr{{Prefix: netip.MustParsePrefix(addr)}} }
	s := State{Links: []Link{
		{Name: "lo", Addrs: at("127.0.0.1/8")},
		{Name: "eth0", MAC: "52:54:00:00:00:01", Master: "bond0"},
		{Name: "eth1", MAC: "52:54:00:00:00:02", Master: "bond0"},
		{Name: "eth2", MAC: "52:54:00:00:00:03", Master: "br0"},
		{Name: "bond0", Kind: "bond", MAC: "52:54:00:00:00:01"},
		{Name: "bond0.7", Kind: "vlan", Parent: "bond0", MAC: "52:54:00:00:00:01"},
		{Name: "br0", Kind: "bridge", Addrs: at("10.0.0.1/24")},
	}}
	for _, c := range []struct {
		w             Wanted
		want, missing string
	}{
		{Wanted{}, "", ""},
		{Wanted{Names: []string{"bond0.7"}}, "bond0.7 bond0 eth0 eth1", ""},
		{Wanted{Names: []string{"52:54:00:00:00:02", "eth9"}}, "eth1", "eth9"},
		{Wanted{Names: []string{"br0"}, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}, "br0", ""},
		{Wanted{Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.2")}}, "", ""},
	} {
		names, missing := c.w.choose(s)
		if got := strings.Join(names, " "); got != c.want || strings.Join(missing, " ") != c.missing {
			t.Errorf("%+v: %s; missing %q", c.w, got, missing)
		}
	}
}

func TestLinkChanges(t *testing.T) {
	now := time.Unix(1e9, 0)
	before := []Health{{Name: "a", State: StateUp}, {Name: "b", State: StateUp, Master: "bond0"}, {Name: "c", State: StateNoCarrier}, {Name: "d", State: StateUp}}
	after := []Health{{Name: "a", State: StateUp}, {Name: "b", State: StateNoCarrier, Master: "bond0"}, {Name: "c", State: StateUp}, {Name: "new", State: StateDown}}
	want := []Change{
		{now, "b", "bond0", StateUp, StateNoCarrier}, {now, "c", "", StateNoCarrier, StateUp}, {now, "d", "", StateUp, StateMissing},
	}
	if got := changes(before, after, now); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	if got := changes(nil, after, now); len(got) != 0 {
		t.Errorf("at the start: %+v", got)
	}
}

// The cable of a link that nobody configures is pulled and put back; then the
// link loses its address, which is no change of it, and goes.
func TestLinkWatcher(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	cable(t, "eth0", "far0", nil)
	eth0, err := netlink.LinkByName("eth0")
	must(t, err)
	address := &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("10.0.0.1/24"))}
	must(t, netlink.AddrAdd(eth0, address))
	must(t, netlink.LinkSetUp(eth0))
	want := Wanted{Names: []string{"eth9"}, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
	states := func() (out []string) {
		all, err := Look(want)
		must(t, err)
		for _, h := range all {
			out = append(out, h.Name+" "+h.State)
		}
		return out
	}
	eventually(t, "it is up", func() bool { return slices.Equal(states(), []string{"eth0 up", "eth9 missing"}) })
	w, err := NewWatcher(func() Wanted { return want }, slog.New(slog.DiscardHandler))
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done, told := make(chan struct{}), make(chan Change, 16)
	go func() {
		defer close(done)
		w.Run(ctx, func(all []Change) {
			for _, c := range all {
				told <- c
			}
		})
	}()
	defer func() { cancel(); <-done }()
	next := func(link, to string) {
		t.Helper()
		select {
		case c := <-told:
			if c.Link != link || c.To != to || c.From == c.To {
				t.Errorf("%+v", c)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("nobody says that %s is %s", link, to)
		}
	}
	far0, err := netlink.LinkByName("far0")
	must(t, err)
	must(t, netlink.LinkSetDown(far0))
	next("eth0", StateNoCarrier)
	must(t, netlink.LinkSetUp(far0))
	next("eth0", StateUp)
	must(t, netlink.AddrDel(eth0, address))
	must(t, netlink.LinkSetDown(eth0))
	next("eth0", StateDown)
	must(t, netlink.LinkDel(eth0))
	next("eth0", StateMissing)
	select {
	case c := <-told:
		t.Errorf("%+v", c)
	default:
	}
}
