package netconf

import (
	"net/netip"
	"slices"
)

// State is what the kernel has.
type State struct {
	Links  []Link
	Routes []Route // those with RouteProtocol in the main table
}

// Link is a network interface.
type Link struct {
	Index   int
	Name    string
	Kind    string // bond, vlan, veth, ...; "" is hardware (rtnetlink(7), IFLA_INFO_KIND)
	Driver  string // as ethtool -i tells it
	MAC     string // the permanent one where the driver knows it
	MTU     int
	Up      bool // as an administrator set it
	Carrier bool
	Master  string // name of the bond or bridge it is a member of
	Parent  string // of a VLAN
	VLAN    int    // id of a VLAN
	Bond    BondOptions
	Addrs   []Addr // in the order of the kernel
}

// Addr is an address of a link.
type Addr struct {
	Prefix   netip.Prefix
	Lifetime int  // seconds left; 0 is forever
	Kernel   bool // the kernel made it (link-local, router advertisements): not ours to remove
}

// Route is a route of ours.
type Route struct {
	To     netip.Prefix
	Via    netip.Addr // invalid: directly on the link
	Link   string
	Metric int  // the lowest wins
	OnLink bool // the router is on the link though no network of ours has it
}

// BondOptions are the options of a bond that ssi sets. In an operation, zero
// values stay as they are.
type BondOptions struct {
	Mode     string // active-backup, 802.3ad, or another that ssi never sets
	Miimon   int    // ms
	LACPRate string // slow, fast
	Primary  string
}

// link finds a link by name, or nil.
func (s *State) link(name string) *Link {
	for i := range s.Links {
		if s.Links[i].Name == name {
			return &s.Links[i]
		}
	}
	return nil
}

func (s State) clone() State {
	out := State{Links: slices.Clone(s.Links), Routes: slices.Clone(s.Routes)}
	for i := range out.Links {
		out.Links[i].Addrs = slices.Clone(out.Links[i].Addrs)
	}
	return out
}

// hardware reports whether a link is one that exists by itself.
func (l *Link) hardware() bool { return l.Name != "lo" && (l.Kind == "" || l.Kind == "veth") }

// apply is what the kernel does with an operation, as far as the planner must
// know it.
func (s *State) apply(op Op) {
	l := s.link(op.Link)
	if l == nil && op.Verb != AddBond && op.Verb != AddVLAN && op.Verb != RemoveRoute {
		return
	}
	switch op.Verb {
	case Rename:
		s.rename(op.Link, op.To)
	case AddBond:
		s.Links = append(s.Links, Link{Index: s.nextIndex(), Name: op.Link, Kind: "bond", MTU: 1500, Bond: op.Bond})
	case AddVLAN:
		mtu := 1500
		if p := s.link(op.To); p != nil {
			mtu = p.MTU
		}
		s.Links = append(s.Links, Link{Index: s.nextIndex(), Name: op.Link, Kind: "vlan", MTU: mtu, Parent: op.To, VLAN: op.Number})
	case Delete:
		s.Links = slices.DeleteFunc(s.Links, func(o Link) bool { return o.Name == op.Link })
		s.dropRoutes(op.Link, func(Route) bool { return true })
	case SetBond:
		l.Bond = merged(l.Bond, op.Bond)
	case Enslave:
		l.Master, l.Up = op.To, true
		if m := s.link(op.To); m != nil {
			l.MTU = m.MTU // bond_enslave() gives the member the MTU of the bond
		}
	case Release:
		l.Master, l.Up = "", false
	case SetMTU:
		for i := range s.Links {
			if s.Links[i].Name == op.Link || s.Links[i].Master == op.Link {
				s.Links[i].MTU = op.Number
			}
		}
	case Up:
		l.Up = true
	case Down:
		l.Up = false
		s.dropRoutes(op.Link, func(Route) bool { return true })
	case AddAddress:
		if i := slices.IndexFunc(l.Addrs, func(a Addr) bool { return a.Prefix == op.Addr.Prefix }); i >= 0 {
			l.Addrs[i].Lifetime = op.Addr.Lifetime
		} else {
			l.Addrs = append(l.Addrs, op.Addr)
		}
	case RemoveAddress:
		s.removeAddress(l, op.Addr.Prefix)
	case AddRoute:
		s.Routes = append(slices.DeleteFunc(s.Routes, op.Route.sameKey), op.Route)
	case RemoveRoute:
		s.Routes = slices.DeleteFunc(s.Routes, func(r Route) bool { return r == op.Route })
	}
}

// sameKey reports whether the kernel would replace one route by the other.
func (r Route) sameKey(o Route) bool { return r.To == o.To && r.Metric == o.Metric }

func (s *State) nextIndex() int {
	n := 0
	for _, l := range s.Links {
		n = max(n, l.Index)
	}
	return n + 1
}

func (s *State) rename(from, to string) {
	for i := range s.Links {
		l := &s.Links[i]
		for _, name := range []*string{&l.Name, &l.Master, &l.Parent, &l.Bond.Primary} {
			if *name == from {
				*name = to
			}
		}
	}
	for i := range s.Routes {
		if s.Routes[i].Link == from {
			s.Routes[i].Link = to
		}
	}
}

// removeAddress takes away an address; the other addresses of an IPv4 network go
// with the first one of it (net/ipv4/devinet.c, __inet_del_ifa), and all routes
// of the link with its last address.
func (s *State) removeAddress(l *Link, p netip.Prefix) {
	i := slices.IndexFunc(l.Addrs, func(a Addr) bool { return a.Prefix == p })
	if i < 0 {
		return
	}
	same := func(a Addr) bool { return a.Prefix.Masked() == p.Masked() }
	primary := p.Addr().Is4() && slices.IndexFunc(l.Addrs, same) == i
	l.Addrs = slices.Delete(l.Addrs, i, i+1)
	if primary {
		l.Addrs = slices.DeleteFunc(l.Addrs, same)
	}
	if p.Addr().Is4() && !slices.ContainsFunc(l.Addrs, func(a Addr) bool { return a.Prefix.Addr().Is4() }) {
		s.dropRoutes(l.Name, func(r Route) bool { return r.To.Addr().Is4() })
	}
}

func (s *State) dropRoutes(link string, which func(Route) bool) {
	s.Routes = slices.DeleteFunc(s.Routes, func(r Route) bool { return r.Link == link && which(r) })
}

// merged is what a bond has after options were set.
func merged(is, set BondOptions) BondOptions {
	if set.Mode != "" {
		is.Mode = set.Mode
	}
	if set.Miimon != 0 {
		is.Miimon = set.Miimon
	}
	if set.LACPRate != "" {
		is.LACPRate = set.LACPRate
	}
	if set.Primary != "" {
		is.Primary = set.Primary
	}
	return is
}
