package netconf

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"ssi/internal/config"
)

func ackFor(t testing.TB, modifiers ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{
		dhcpv4.WithMessageType(dhcpv4.MessageTypeAck), dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 9)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
		dhcpv4.WithServerIP(net.IPv4(10, 0, 0, 1)), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 0, 0, 1))), dhcpv4.WithLeaseTime(3600),
	}, modifiers...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestParseLease(t *testing.T) {
	_, ten, _ := net.ParseCIDR("10.7.0.0/16")
	l, err := parseLease(ackFor(t, dhcpv4.WithRouter(net.IPv4(10, 0, 0, 254), net.IPv4(10, 0, 0, 253)),
		dhcpv4.WithDNS(net.IPv4(1, 1, 1, 1), net.IPv4(1, 1, 1, 1), net.IPv4(224, 0, 0, 1), net.IPv4(1, 1, 1, 2)), dhcpv4.WithOption(dhcpv4.OptDomainName("rack.example"))), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if l.Addr.String() != "10.0.0.9/24" || l.Router.String() != "10.0.0.254" || len(l.DNS) != 2 || l.Domain != "rack.example" || l.Renew != 30*time.Minute || l.Rebind != 52*time.Minute+30*time.Second {
		t.Errorf("%+v", l)
	}
	// RFC 3442: with classless routes, the router does not count.
	l, err = parseLease(ackFor(t, dhcpv4.WithRouter(net.IPv4(10, 0, 0, 254)), dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(&dhcpv4.Route{Dest: ten, Router: net.IPv4(10, 0, 0, 7)}))), time.Now())
	if err != nil || l.Router.IsValid() || len(l.Routes) != 1 || l.Routes[0].To.String() != "10.7.0.0/16" || l.Routes[0].Via.String() != "10.0.0.7" {
		t.Errorf("%+v, %v", l, err)
	}
	if l, err := parseLease(ackFor(t, dhcpv4.WithLeaseTime(0xffffffff)), time.Now()); err != nil || l.Length != 0 || l.left(time.Now().Add(time.Hour)) != 0 {
		t.Errorf("a lease forever: %+v, %v", l, err)
	}
	if l, err := parseLease(ackFor(t, dhcpv4.WithOption(dhcpv4.OptDomainName("a\nnameserver 6.6.6.6"))), time.Now()); err != nil || l.Domain != "" {
		t.Errorf("a domain of two lines: %+v, %v", l, err)
	}
	for says, m := range map[string]dhcpv4.Modifier{
		"which no host can have": dhcpv4.WithYourIP(net.IPv4(127, 0, 0, 1)),
		"with the netmask":       dhcpv4.WithNetmask(net.IPMask{255, 0, 255, 0}),
		"lends 10.0.0.9 for 1s":  dhcpv4.WithLeaseTime(1),
		"its own address":        dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4bcast)),
	} {
		if _, err := parseLease(ackFor(t, m), time.Now()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

// From the first half of a lease to its end, asked in vain: the steps follow
// each other, come closer, and are few.
func TestLeaseSteps(t *testing.T) {
	for _, length := range []time.Duration{4 * time.Second, time.Minute, time.Hour, 30 * 24 * time.Hour} {
		l := Lease{Length: length, Renew: length / 2, Rebind: length * 7 / 8}
		elapsed, last, steps := time.Duration(0), renew, 0
		for {
			todo, at := l.next(elapsed)
			if at <= elapsed || todo < last || at > length {
				t.Fatalf("%s: after %s comes %d at %s", length, elapsed, todo, at)
			}
			if todo == renew && (at < l.Renew || at >= l.Rebind) || todo == rebind && (at < l.Rebind || at >= length) {
				t.Fatalf("%s: %d at %s", length, todo, at)
			}
			if todo == expire {
				break
			}
			elapsed, last, steps = at, todo, steps+1
		}
		if last != rebind && length > time.Minute || steps < 1 || steps > 40 {
			t.Errorf("%s: %d steps, the last one %d", length, steps, last)
		}
	}
}

// Whatever a server says, the lease is one that the planner and the kernel can
// take.
func FuzzLease(f *testing.F) {
	f.Add(ackFor(f, dhcpv4.WithRouter(net.IPv4(10, 0, 0, 254))).ToBytes())
	_, ten, _ := net.ParseCIDR("10.7.0.0/16")
	f.Add(ackFor(f, dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(&dhcpv4.Route{Dest: ten, Router: net.IPv4zero}))).ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		now := time.Unix(1e9, 0)
		l, err := parseLease(m, now)
		if err != nil {
			return
		}
		if !l.Addr.Addr().Is4() || len(l.Routes) > maxLeaseRoutes || len(l.DNS) > config.MaxDNS || l.Length < 0 ||
			l.Length > 0 && (l.Renew <= 0 || l.Renew >= l.Rebind || l.Rebind >= l.Length || l.left(now) <= 0) {
			t.Errorf("%+v", l)
		}
		domains := strings.Fields(l.Domain)
		if l.Domain != "" && (len(domains) != 1 || domains[0] != l.Domain) {
			t.Errorf("the domain %q", l.Domain)
		}
		for _, line := range strings.Split(strings.TrimSpace(resolvText(append(l.DNS, netip.MustParseAddr("1.1.1.1")), domains)), "\n") {
			if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "nameserver ") && !strings.HasPrefix(line, "search ") {
				t.Errorf("resolv.conf has %q", line)
			}
		}
		in := Input{Interfaces: []config.Interface{{Name: "eth0", Address: []string{"dhcp"}}}, Leases: map[string]Lease{"eth0": l}, Now: now, State: State{Links: []Link{nic(1, "eth0")}}}
		for _, op := range MakePlan(in).Ops {
			in.State.apply(op)
		}
		if again := MakePlan(in); len(again.Ops) > 0 {
			t.Errorf("%v", again.Ops)
		}
		if (len(l.Routes) > 0 || l.Router.IsValid()) && len(in.State.Routes) == 0 {
			t.Errorf("no routes of %+v", l)
		}
	})
}

// What comes in on the port of the client is anything.
func FuzzOffers(f *testing.F) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	m, err := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer), dhcpv4.WithHwAddr(mac), dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 9)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 0, 0, 1))))
	if err != nil {
		f.Fatal(err)
	}
	m.OpCode = dhcpv4.OpcodeBootReply
	o := &offers{mac: mac}
	o.note(m.ToBytes())
	if got := o.beside(netip.MustParseAddr("10.0.0.2")); len(got) != 1 || got[0] != netip.MustParseAddr("10.0.0.1") || len(o.beside(got[0])) != 0 {
		f.Fatalf("%v", got)
	}
	f.Add(m.ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		o := &offers{mac: mac}
		o.note(b)
		for _, a := range o.beside(netip.Addr{}) {
			if !a.Is4() || a.IsUnspecified() || a.IsMulticast() {
				t.Errorf("%v", a)
			}
		}
	})
}
