package netconf

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"ssi/internal/config"
)

// RouteProtocol marks the routes of ssi (rtnetlink(7), rtm_protocol; `ip route`
// shows it as proto 85). The kernel gives no meaning to it.
const RouteProtocol = 85

// Input is what a plan is made of.
type Input struct {
	Interfaces []config.Interface
	Leases     map[string]Lease // by name of the link; one that is not Valid says that there is none any more
	InUse      []netip.Addr     // the nodes talk over these
	Now        time.Time        // for the lifetimes of leases
	State      State
}

// Plan is how to get from the state to what is wanted.
type Plan struct {
	Ops   []Op
	Waits map[string]string // label of an interface -> why it is not as wanted
	DHCP  []string          // links that need a lease
	Bound []Binding         // which interface is which link, in the order of the configuration
}

// Binding is an interface of the configuration and a link that it is.
type Binding struct {
	Label string // config.Interface.Label
	Link  string // its name after the plan
}

// planner works on a copy of the state that it changes with every operation, so
// that later steps see what earlier ones did.
type planner struct {
	in    Input
	is    State
	plan  Plan
	bound []bound
}

// MakePlan compares what is with what is wanted. Applying the operations in
// their order gives the wanted state, apart from what Waits names; the plan of
// that state is empty.
func MakePlan(in Input) Plan {
	p := &planner{in: in, is: in.State.clone(), plan: Plan{Waits: map[string]string{}}}
	p.bind()
	for rank, n := range in.Interfaces {
		b := bound{Interface: n, link: n.Name, rank: rank}
		switch {
		case n.Bond != nil && p.bond(b), n.VLAN != nil && p.vlan(b):
			p.bound = append(p.bound, b)
		}
	}
	slices.SortStableFunc(p.bound, func(a, b bound) int { return a.rank - b.rank })
	for _, b := range p.bound {
		p.plan.Bound = append(p.plan.Bound, Binding{b.Label(), b.link})
		p.link(b)
	}
	for _, b := range p.bound {
		p.addresses(b)
	}
	p.routes()
	return p.plan
}

func (p *planner) do(op Op) {
	p.plan.Ops = append(p.plan.Ops, op)
	p.is.apply(op)
}

func (p *planner) wait(label, why string) {
	if _, known := p.plan.Waits[label]; !known {
		p.plan.Waits[label] = why
	}
}

// inUse reports whether the nodes talk over an address of the link.
func (p *planner) inUse(link string) bool {
	l := p.is.link(link)
	return l != nil && slices.ContainsFunc(l.Addrs, func(a Addr) bool { return slices.Contains(p.in.InUse, a.Prefix.Addr()) })
}

// link sets MTU and state.
func (p *planner) link(b bound) {
	l := p.is.link(b.link)
	if b.MTU != 0 && l.MTU != b.MTU && l.Master == "" {
		p.do(Op{Verb: SetMTU, Link: b.link, Number: b.MTU})
	}
	if b.VLAN != nil {
		p.up(b.VLAN.Parent)
	}
	p.up(b.link)
}

func (p *planner) up(name string) {
	if l := p.is.link(name); l != nil && !l.Up {
		p.do(Op{Verb: Up, Link: name})
	}
}

// wantedAddrs are the addresses an interface shall have; settled says that a
// DHCP server was heard, or is not asked.
func (p *planner) wantedAddrs(b bound) (wanted []Addr, settled bool) {
	for _, a := range b.Prefixes() {
		wanted = append(wanted, Addr{Prefix: a})
	}
	if !b.DHCP() {
		return wanted, true
	}
	lease, heard := p.in.Leases[b.link]
	if left := lease.left(p.in.Now); heard && lease.Valid() && left >= 0 {
		a := Addr{Prefix: lease.Addr, Lifetime: left}
		if !slices.ContainsFunc(wanted, func(o Addr) bool { return o.Prefix == a.Prefix }) {
			wanted = append(wanted, a)
		}
	}
	return wanted, heard
}

func (p *planner) addresses(b bound) {
	l := p.is.link(b.link)
	if b.DHCP() && l.Master == "" {
		p.plan.DHCP = append(p.plan.DHCP, b.link)
	}
	if len(b.Address) == 0 || l.Master != "" {
		return
	}
	wanted, settled := p.wantedAddrs(b)
	for _, a := range slices.Clone(l.Addrs) {
		switch {
		case a.Kernel, slices.ContainsFunc(wanted, func(w Addr) bool { return w.Prefix == a.Prefix }):
		case !settled && a.Lifetime > 0 && a.Prefix.Addr().Is4():
		case slices.Contains(p.in.InUse, a.Prefix.Addr()) && !b.NoAddress():
			p.wait(b.Label(), fmt.Sprintf("%s is not configured any more and stays while the nodes talk over it", a.Prefix))
		default:
			p.removeAddress(b.link, a.Prefix)
		}
	}
	for _, w := range wanted {
		l := p.is.link(b.link)
		i := slices.IndexFunc(l.Addrs, func(a Addr) bool { return a.Prefix == w.Prefix })
		if i < 0 || !sameLifetime(l.Addrs[i].Lifetime, w.Lifetime) {
			p.do(Op{Verb: AddAddress, Link: b.link, Addr: w})
		}
	}
}

// removeAddress takes an address away, if it did not go with another one.
func (p *planner) removeAddress(link string, a netip.Prefix) {
	if slices.ContainsFunc(p.is.link(link).Addrs, func(o Addr) bool { return o.Prefix == a }) {
		p.do(Op{Verb: RemoveAddress, Link: link, Addr: Addr{Prefix: a}})
	}
}

// sameLifetime compares lifetimes in seconds that were rounded at different
// moments.
func sameLifetime(is, want int) bool {
	if is == 0 || want == 0 {
		return is == want
	}
	return is-want < 5 && want-is < 2
}

// routes sets those of all interfaces and removes those of ours that nothing
// wants any more.
func (p *planner) routes() {
	var wanted []Route
	unsettled := map[string]bool{}
	for _, b := range p.bound {
		addrs, settled := p.wantedAddrs(b)
		unsettled[b.link] = !settled
		for _, r := range p.wantedRoutes(b) {
			r.Link, r.Metric = b.link, b.metric()
			r.OnLink = r.Via.IsValid() && !r.Via.IsLinkLocalUnicast() && !reachable(r.Via, addrs, p.is.link(b.link).Addrs)
			if p.is.link(b.link).Up && !slices.ContainsFunc(wanted, r.sameKey) {
				wanted = append(wanted, r)
			}
		}
	}
	for _, r := range slices.Clone(p.is.Routes) {
		if !slices.Contains(wanted, r) && !slices.ContainsFunc(wanted, r.sameKey) && !unsettled[r.Link] {
			p.do(Op{Verb: RemoveRoute, Link: r.Link, Route: r})
		}
	}
	for _, r := range wanted {
		if !slices.Contains(p.is.Routes, r) {
			p.do(Op{Verb: AddRoute, Link: r.Link, Route: r})
		}
	}
}

func (p *planner) wantedRoutes(b bound) []Route {
	var out []Route
	lease := p.in.Leases[b.link]
	leased := b.DHCP() && lease.Valid() && lease.left(p.in.Now) >= 0
	if g, err := netip.ParseAddr(b.Gateway); err == nil {
		out = append(out, Route{To: defaultOf(g), Via: g})
	} else if leased && lease.Router.IsValid() {
		out = append(out, Route{To: defaultOf(lease.Router), Via: lease.Router})
	}
	for _, r := range b.Routes {
		via, _ := netip.ParseAddr(r.Via)
		out = append(out, Route{To: netip.MustParsePrefix(r.To), Via: via})
	}
	if leased {
		out = append(out, lease.Routes...)
	}
	return out
}

func defaultOf(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

func reachable(via netip.Addr, sets ...[]Addr) bool {
	for _, set := range sets {
		if slices.ContainsFunc(set, func(a Addr) bool { return a.Prefix.Contains(via) }) {
			return true
		}
	}
	return false
}
