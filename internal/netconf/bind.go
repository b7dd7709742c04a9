package netconf

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"ssi/internal/config"
)

// bound is an interface of the configuration with the link that it is.
type bound struct {
	config.Interface
	link string // name of the link
	rank int    // place in the configuration
}

// metric is that of the routes of the interface: the first one of the
// configuration wins. 1024 is usual for networks that a program configures.
func (b bound) metric() int { return 1024 + b.rank }

// bind finds the links of the interfaces that exist by themselves, and renames
// those that shall have another name. Hardware addresses say most, so they come
// first: a name means the link that has it after their renames. Drivers get what
// is left.
func (p *planner) bind() {
	p.bindThose(func(n config.Interface) bool { return n.MAC != "" })
	p.bindThose(func(n config.Interface) bool { return n.MAC == "" && n.Driver == "" })
	p.bindThose(func(n config.Interface) bool { return n.Driver != "" })
}

func (p *planner) bindThose(which func(config.Interface) bool) {
	var renames []bound
	for rank, n := range p.in.Interfaces {
		if n.VLAN != nil || n.Bond != nil || !which(n) {
			continue
		}
		links := p.match(n)
		if len(links) == 0 {
			p.wait(n.Label(), p.whyMissing(n))
		}
		for _, l := range links {
			b := bound{Interface: n, link: l.Name, rank: rank}
			switch {
			case p.taken(l.Name):
				p.wait(n.Label(), fmt.Sprintf("%s is configured by another [[interface]] already", l.Name))
			case n.Name != "" && n.Name != l.Name:
				renames = append(renames, b)
			default:
				p.bound = append(p.bound, b)
			}
		}
	}
	p.renameAll(renames)
}

func (p *planner) taken(link string) bool {
	return slices.ContainsFunc(p.bound, func(b bound) bool { return b.link == link })
}

// match finds the links of an interface: one, or all of a driver.
func (p *planner) match(n config.Interface) []Link {
	var out []Link
	for _, l := range p.is.Links {
		switch {
		case n.MAC != "":
			if l.hardware() && strings.EqualFold(l.MAC, n.MAC) {
				return []Link{l}
			}
		case n.Driver != "":
			if ok, err := path.Match(n.Driver, l.Driver); err == nil && ok && l.hardware() && !p.named(l) {
				out = append(out, l)
			}
		case l.Name == n.Name:
			return []Link{l}
		}
	}
	if n.Name != "" && len(out) > 0 { // one of them has, or gets, the name
		i := max(slices.IndexFunc(out, func(l Link) bool { return l.Name == n.Name }), 0)
		return out[i : i+1]
	}
	return out
}

// named reports whether an interface or bond asks for a link by name or MAC
// address, or another took it, so that no driver pattern does.
func (p *planner) named(l Link) bool {
	for _, n := range p.in.Interfaces {
		if n.Driver == "" && n.Name == l.Name && n.MAC == "" || n.MAC != "" && strings.EqualFold(n.MAC, l.MAC) {
			return true
		}
		if n.Bond != nil && slices.ContainsFunc(n.Bond.Members, func(m string) bool { return m == l.Name || strings.EqualFold(m, l.MAC) }) {
			return true
		}
	}
	return l.Master != "" || p.taken(l.Name)
}

// whyMissing explains that there is no such link.
func (p *planner) whyMissing(n config.Interface) string {
	var there []string
	for _, l := range p.is.Links {
		if l.hardware() {
			there = append(there, fmt.Sprintf("%s (%s, %s)", l.Name, l.MAC, l.Driver))
		}
	}
	if len(there) == 0 {
		return "this machine has no network interface: is the module of its driver loaded?"
	}
	have := "; there are " + strings.Join(there[:min(len(there), 8)], ", ")
	switch {
	case n.MAC != "":
		return "no interface has the address " + n.MAC + have
	case n.Driver != "":
		return "no interface has a driver " + n.Driver + have
	}
	return "there is no interface " + n.Name + have
}

// renameAll gives links their names. Two that exchange names go over a third.
func (p *planner) renameAll(renames []bound) {
	var moves []bound
	for _, b := range renames {
		if p.inUse(b.link) {
			p.wait(b.Label(), fmt.Sprintf("%s is not renamed while the nodes talk over it", b.link))
			p.bound = append(p.bound, b)
		} else {
			moves = append(moves, b)
		}
	}
	for i, b := range moves {
		for j := range moves[i+1:] {
			if later := &moves[i+1+j]; later.link == b.Name {
				third := fmt.Sprintf("ssiren%d", p.is.link(later.link).Index)
				p.rename(later.link, third)
				later.link = third
			}
		}
	}
	for _, b := range moves {
		if p.is.link(b.Name) != nil {
			p.wait(b.Label(), fmt.Sprintf("%s cannot get the name %s: another interface has it", b.link, b.Name))
		} else {
			p.rename(b.link, b.Name)
			b.link = b.Name
		}
		p.bound = append(p.bound, b)
	}
}

func (p *planner) rename(from, to string) {
	if p.is.link(from).Up {
		p.do(Op{Verb: Down, Link: from})
	}
	p.do(Op{Verb: Rename, Link: from, To: to})
}
