package netconf

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"ssi/internal/config"
)

const (
	maxLeaseRoutes = 32
	// minLease is the shortest lease taken: below it nothing but renewing would
	// happen.
	minLease = 4 * time.Second
	// forever is the lease time without end (RFC 2131, 3.3).
	forever = 0xffffffff * time.Second
)

// Lease is what a DHCP server said.
type Lease struct {
	Addr   netip.Prefix
	Router netip.Addr // of the default route; invalid: none
	Routes []Route    // further ones (RFC 3442); link and metric are empty
	DNS    []netip.Addr
	Domain string
	Server netip.Addr

	Start  time.Time     // when it was asked for
	Length time.Duration // 0 is forever
	Renew  time.Duration // after Start: ask the server (T1)
	Rebind time.Duration // after Start: ask every server (T2)

	ack *dhcpv4.DHCPv4 // to renew and release it
}

// Valid reports whether there is an address.
func (l Lease) Valid() bool { return l.Addr.IsValid() }

// left is the lifetime in seconds, rounded up: 0 is forever, -1 over.
func (l Lease) left(now time.Time) int {
	if l.Length == 0 {
		return 0
	}
	left := l.Length - now.Sub(l.Start)
	if left <= 0 {
		return -1
	}
	return int((left + time.Second - 1) / time.Second)
}

// parseLease reads the message by which a server gives an address (RFC 2131
// DHCPACK). Its bytes come from whoever answered first: what makes no sense is
// an error, or left away where one can do without.
func parseLease(ack *dhcpv4.DHCPv4, start time.Time) (Lease, error) {
	l := Lease{Start: start, ack: ack}
	addr, ok := ipv4(ack.YourIPAddr)
	if !ok {
		return Lease{}, fmt.Errorf("it gave the address %v, which no host can have", ack.YourIPAddr)
	}
	ones, bits := ack.SubnetMask().Size()
	if bits != 32 || ones == 0 {
		return Lease{}, fmt.Errorf("it gave %s with the netmask %v, which is none", addr, ack.SubnetMask())
	}
	l.Addr = netip.PrefixFrom(addr, ones)
	if l.Server, ok = ipv4(ack.ServerIdentifier()); !ok {
		return Lease{}, fmt.Errorf("it did not say its own address")
	}
	l.setTimes(ack)
	if l.Length != 0 && l.Length < minLease {
		return Lease{}, fmt.Errorf("it lends %s for %s only; at least %s are needed", addr, l.Length, minLease)
	}
	// With classless routes, the router does not count (RFC 3442).
	for _, r := range ack.ClasslessStaticRoute() {
		l.addRoute(r)
	}
	if routers := ack.Router(); len(routers) > 0 && len(l.Routes) == 0 && !l.Router.IsValid() {
		if r, ok := ipv4(routers[0]); ok && r != addr {
			l.Router = r
		}
	}
	for _, ip := range ack.DNS() {
		if a, ok := ipv4(ip); ok && len(l.DNS) < config.MaxDNS && !slices.Contains(l.DNS, a) {
			l.DNS = append(l.DNS, a)
		}
	}
	if d := ack.DomainName(); config.CheckDomain(d) == nil {
		l.Domain = d
	}
	return l, nil
}

// setTimes reads the times of a lease, with the defaults of RFC 2131, 4.4.5.
func (l *Lease) setTimes(ack *dhcpv4.DHCPv4) {
	length := ack.IPAddressLeaseTime(time.Hour)
	if length >= forever {
		return
	}
	l.Length = length
	l.Renew = ack.IPAddressRenewalTime(length / 2)
	l.Rebind = ack.IPAddressRebindingTime(length - length/8)
	if l.Renew <= 0 || l.Renew >= l.Rebind || l.Rebind >= length {
		l.Renew, l.Rebind = length/2, length-length/8
	}
}

func (l *Lease) addRoute(r *dhcpv4.Route) {
	if r == nil || r.Dest == nil || len(l.Routes) >= maxLeaseRoutes {
		return
	}
	to, ok := netip.AddrFromSlice(r.Dest.IP.To4())
	ones, bits := r.Dest.Mask.Size()
	if !ok || bits != 32 {
		return
	}
	route := Route{To: netip.PrefixFrom(to, ones).Masked()}
	via, ok := ipv4(r.Router)
	if ok {
		route.Via = via
	} else if !r.Router.IsUnspecified() { // 0.0.0.0: directly on the link
		return
	}
	switch {
	case via == l.Addr.Addr():
	case ones == 0 && ok:
		l.Router = via
	case ones > 0 && !to.IsLoopback() && !to.IsMulticast():
		l.Routes = append(l.Routes, route)
	}
}

// ipv4 takes an address that a host can have.
func ipv4(ip net.IP) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(ip.To4())
	if !ok || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.As4()[0] >= 240 || a.As4()[0] == 0 {
		return netip.Addr{}, false
	}
	return a, true
}

// step is what to do with a lease.
type step int

const (
	renew  step = iota // ask its server
	rebind             // ask every server
	expire             // give it up
)

// next is what to do with a lease next, and when, counted from its start, as
// RFC 2131, 4.4.5 says: after a request in vain the next one is sent after half
// of the time that is left. The lease has an end.
func (l Lease) next(elapsed time.Duration) (step, time.Duration) {
	// The RFC has a least time of 60 s; short leases need a shorter one.
	least := min(max(l.Length/60, time.Second), time.Minute)
	switch {
	case elapsed < l.Renew:
		return renew, l.Renew
	case elapsed < l.Rebind:
		if at := elapsed + max((l.Rebind-elapsed)/2, least); at < l.Rebind {
			return renew, at
		}
		return rebind, l.Rebind
	case elapsed < l.Length:
		if at := elapsed + max((l.Length-elapsed)/2, least); at < l.Length {
			return rebind, at
		}
	}
	return expire, l.Length
}
