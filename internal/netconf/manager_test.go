package netconf

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ssi/internal/config"
)

// start runs a Manager until the test ends; stop ends it earlier.
func start(t *testing.T, o Options) (m *Manager, stop func()) {
	t.Helper()
	m, err := New(o)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.Run(ctx)
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(func() { stop(); m.Close() })
	return m, stop
}

// settled reports whether the network is as configured: planning again with what
// the kernel has gives nothing to do.
func settled(t *testing.T, m *Manager) bool {
	t.Helper()
	k, err := openKernel(nil)
	must(t, err)
	defer k.close()
	state, err := k.state()
	must(t, err)
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(MakePlan(Input{Interfaces: m.o.Interfaces, Leases: m.leases, Now: time.Now(), State: state}).Ops) == 0
}

func has(t *testing.T, link, prefix string) bool {
	t.Helper()
	l, err := netlink.LinkByName(link)
	if err != nil {
		return false
	}
	all, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	must(t, err)
	for _, a := range all {
		if a.IPNet.String() == prefix {
			return true
		}
	}
	return false
}

func TestStatic(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	cable(t, "eth0", "far0", nil)
	cable(t, "eth1", "far1", nil)
	eth0, err := netlink.LinkByName("eth0")
	must(t, err)
	must(t, netlink.AddrAdd(eth0, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 9, 0, 1), Mask: net.CIDRMask(24, 32)}}))
	c, err := config.Parse("test", `
interconnect = ["ic0"]
[[interface]]
name = "ic0"
mac = "`+eth0.Attrs().HardwareAddr.String()+`"
address = ["10.0.0.1/24", "10.0.0.2/24", "fd00::1/64"]
gateway = "10.0.0.254"
mtu = 1400
routes = [{to = "10.2.0.0/16", via = "10.0.0.253"}, {to = "10.3.0.0/16"}, {to = "fd01::/64", via = "fd00::2"}]
`)
	must(t, err)
	m, stop := start(t, Options{Interfaces: c.Interfaces, Interconnects: c.Interconnects()})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	must(t, m.Wait(ctx))
	eventually(t, "the network is as configured", func() bool { return settled(t, m) && has(t, "ic0", "10.0.0.2/24") })
	ic0, err := netlink.LinkByName("ic0")
	must(t, err)
	if ic0.Attrs().MTU != 1400 || has(t, "ic0", "10.9.0.1/24") || !has(t, "ic0", "fd00::1/64") {
		t.Errorf("%+v", ic0.Attrs())
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: RouteProtocol}, netlink.RT_FILTER_PROTOCOL)
	must(t, err)
	if len(routes) != 4 {
		t.Errorf("routes: %v", routes)
	}
	if i := m.Interconnects(); len(i) != 1 || !i[0].Ready() || i[0].Addr != netip.MustParseAddr("10.0.0.1") || i[0].Name != "ic0" {
		t.Errorf("%+v", i)
	}
	if eth1, err := netlink.LinkByName("eth1"); err != nil || eth1.Attrs().Flags&net.FlagUp != 0 {
		t.Errorf("an interface that is not configured was touched: %+v, %v", eth1, err)
	}

	// Someone takes an address away: it comes back.
	must(t, netlink.AddrDel(ic0, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 0, 0, 1), Mask: net.CIDRMask(24, 32)}}))
	eventually(t, "the address is back", func() bool { return has(t, "ic0", "10.0.0.1/24") && settled(t, m) })

	// The cable is pulled, and put in again.
	far0, err := netlink.LinkByName("far0")
	must(t, err)
	must(t, netlink.LinkSetDown(far0))
	eventually(t, "no carrier", func() bool {
		s := m.Status()
		return len(s) == 1 && s[0].State == StateNoCarrier && strings.Contains(s[0].at(s[0].Since.Add(5*time.Second)), "ic0: no carrier, ") &&
			strings.HasSuffix(s[0].at(s[0].Since.Add(5*time.Second)), ": no carrier, is the cable in? (for 5 s)")
	})
	must(t, netlink.LinkSetUp(far0))
	eventually(t, "up", func() bool { return m.Status()[0].Why == "" && m.Interconnects()[0].Ready() })

	// A second daemon finds everything done, and ends what the first one wanted.
	stop()
	c.Interfaces[0].Address, c.Interfaces[0].Gateway, c.Interfaces[0].Routes = []string{"10.0.0.1/24"}, "", nil
	inUse := []netip.Addr{netip.MustParseAddr("10.0.0.2")}
	m, _ = start(t, Options{Interfaces: c.Interfaces, InUse: func() []netip.Addr { return inUse }})
	eventually(t, "the old routes are gone", func() bool {
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: RouteProtocol}, netlink.RT_FILTER_PROTOCOL)
		return err == nil && len(routes) == 0 && len(m.Status()) > 0
	})
	if !has(t, "ic0", "10.0.0.2/24") || !strings.Contains(m.Status()[0].String(), "10.0.0.2/24 is not configured any more and stays while the nodes talk over it") {
		t.Errorf("an address in use: %v", m.Status())
	}
}

// A plan that comes again and again waits longer and longer; another one, and
// the renewal of a lease, do not wait.
func TestHold(t *testing.T) {
	m, now := &Manager{}, time.Unix(1e9, 0)
	mtu := func(n int) []Op { return []Op{{Verb: SetMTU, Link: "eth0", Number: n}} }
	done, hour := 0, now.Add(time.Hour)
	for now.Before(hour) {
		hold := m.hold(mtu(1), now)
		if hold > maxAgain {
			t.Fatalf("it waits %s", hold)
		}
		if hold == 0 {
			done++
			hold = time.Millisecond // it is undone at once
		}
		now = now.Add(hold)
	}
	if done < 300 || done > 400 { // every 10 s
		t.Errorf("%d times in an hour", done)
	}
	if hold := m.hold(mtu(2), now); hold != 0 {
		t.Errorf("another plan waits %s", hold)
	}
	if hold := m.hold(mtu(2), now); hold <= 0 {
		t.Error("the same plan does not wait")
	}
	for range 3 {
		if hold := m.hold([]Op{{Verb: AddAddress, Link: "eth0", Addr: Addr{Lifetime: 60}}}, now); hold != 0 {
			t.Errorf("a renewal waits %s", hold)
		}
	}
	if hold := m.hold(mtu(2), now.Add(2*forgetAfter)); hold != 0 {
		t.Errorf("much later it waits %s", hold)
	}
}

// One interface that cannot be configured does not hold up another.
func TestFailing(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	cable(t, "eth0", "far0", nil)
	m, _ := start(t, Options{Interfaces: parse(t, "[[interface]]\nname = \"eth0\"\naddress = [\"10.0.0.1/24\"]\nroutes = [{to = \"10.2.0.0/16\", via = \"10.0.0.255\"}]\n[[interface]]\nname = \"eth1\"\naddress = [\"10.1.0.1/24\"]")})
	eventually(t, "the reason", func() bool {
		s := m.Status()
		return len(s) == 2 && strings.Contains(s[0].Why, "eth0: ") && strings.Contains(s[1].Why, "there is no interface eth1; there are ")
	})
	if !has(t, "eth0", "10.0.0.1/24") {
		t.Error("the address waits for something else")
	}
	cable(t, "eth1", "far1", nil)
	eventually(t, "the other interface", func() bool { return has(t, "eth1", "10.1.0.1/24") })
}

func TestNothingConfigured(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	cable(t, "eth0", "far0", nil)
	eth0, err := netlink.LinkByName("eth0")
	must(t, err)
	must(t, netlink.AddrAdd(eth0, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 9, 0, 1), Mask: net.CIDRMask(24, 32)}}))
	m, _ := start(t, Options{Interconnects: []string{"eth0"}})
	eventually(t, "eth0 is seen", func() bool { return len(m.Status()) == 1 && m.Status()[0].State == StateDown })
	if i := m.Interconnects(); i[0].Addr != netip.MustParseAddr("10.9.0.1") || i[0].Ready() {
		t.Errorf("%+v", i)
	}
	must(t, netlink.LinkSetUp(eth0)) // as another network manager does
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	must(t, m.Wait(ctx))
}

// An interface that appears late is configured; until then the text says what
// is missing.
func TestNoInterface(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	m, _ := start(t, Options{Interfaces: parse(t, "[[interface]]\nname = \"eth0\"\naddress = [\"10.0.0.1/24\"]"), Interconnects: []string{"eth0"}})
	eventually(t, "it says that there is none", func() bool {
		return len(m.Status()) == 1 && strings.Contains(m.Status()[0].String(), "eth0: missing: this machine has no network interface: is the module of its driver loaded?")
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := m.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "this machine has no network interface") {
		t.Errorf("%v", err)
	}
	cable(t, "eth0", "far0", nil)
	eventually(t, "it is configured", func() bool { return has(t, "eth0", "10.0.0.1/24") && m.Interconnects()[0].Ready() })
}

// A bond and a VLAN on it. Kernels without these kinds of links skip it.
func TestBondAndVLAN(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	cable(t, "eth0", "far0", nil)
	cable(t, "eth1", "far1", nil)
	eth0, err := netlink.LinkByName("eth0")
	must(t, err)
	for kind, link := range map[string]netlink.Link{
		"bonding": netlink.NewLinkBond(netlink.LinkAttrs{Name: "probe0"}),
		"8021q":   &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "probe0", ParentIndex: eth0.Attrs().Index}, VlanId: 7},
	} {
		if err := netlink.LinkAdd(link); errors.Is(err, unix.EOPNOTSUPP) {
			t.Skipf("this kernel has no %s", kind)
		} else {
			must(t, err)
			must(t, netlink.LinkDel(link))
		}
	}
	// As the module makes it by itself.
	must(t, netlink.LinkAdd(netlink.NewLinkBond(netlink.LinkAttrs{Name: "bond0"})))
	for _, c := range []struct{ mode, more, up string }{
		{config.ActiveBackup, "primary = \"eth1\"", "eth1"},
		{config.LACP, "lacp_rate = \"slow\"", ""},
		{config.LACP, "", ""},
		{config.ActiveBackup, "primary = \"eth0\"", "eth0"},
	} {
		m, stop := start(t, Options{Interconnects: []string{"bond0"}, Interfaces: parse(t, `
[[interface]]
name = "bond0"
address = ["10.1.0.1/24"]
[interface.bond]
mode = "`+c.mode+`"
members = ["eth0", "eth1"]
miimon = 50
`+c.more+`
[[interface]]
name = "bond0.7"
address = ["10.7.0.1/24"]
vlan = {id = 7, parent = "bond0"}
`)})
		eventually(t, c.mode, func() bool { return settled(t, m) && has(t, "bond0.7", "10.7.0.1/24") })
		l, err := netlink.LinkByName("bond0")
		must(t, err)
		b := l.(*netlink.Bond)
		if b.Mode.String() != c.mode || b.Miimon != 50 || c.mode == config.LACP && (b.LacpRate.String() == "slow") != (c.more != "") {
			t.Errorf("%+v", b)
		}
		seesBond(t, c.mode, c.up)
		if c.up != "" {
			pullPrimary(t, m, c.up)
		}
		stop()
	}
}

// seesBond looks at the VLAN, and sees what carries it and the members of that.
func seesBond(t *testing.T, mode, active string) {
	t.Helper()
	eventually(t, "the bond works", func() bool {
		all, err := Look(Wanted{Names: []string{"bond0.7"}})
		must(t, err)
		found := map[string]Health{}
		for _, h := range all {
			found[h.Name] = h
		}
		b := found["bond0"]
		return len(all) == 4 && found["bond0.7"].Kind == "vlan" && found["bond0.7"].State == StateUp && b.Mode == mode && (active == "" || b.Active == active) &&
			len(b.Addrs) == 1 && found["eth0"].Master == "bond0" && found["eth1"].Master == "bond0"
	})
}

// pullPrimary takes the cable of the primary member out and puts it in again;
// the bond stays ready, first over the other one.
func pullPrimary(t *testing.T, m *Manager, primary string) {
	t.Helper()
	far, err := netlink.LinkByName("far" + primary[len("eth"):])
	must(t, err)
	over := func() string {
		l, err := netlink.LinkByName("bond0")
		must(t, err)
		active, err := netlink.LinkByIndex(l.(*netlink.Bond).ActiveSlave)
		if err != nil {
			return ""
		}
		return active.Attrs().Name
	}
	eventually(t, "the primary works", func() bool { return over() == primary && m.Interconnects()[0].Ready() })
	must(t, netlink.LinkSetDown(far))
	eventually(t, "the other one works", func() bool {
		members := ""
		for _, s := range m.Status() {
			members += strings.Join(s.Members, " ")
		}
		return over() != primary && over() != "" && strings.Contains(members, primary+"!") && m.Interconnects()[0].Ready()
	})
	must(t, netlink.LinkSetUp(far))
	eventually(t, "the primary works again", func() bool { return over() == primary })
}
