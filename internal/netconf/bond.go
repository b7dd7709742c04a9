package netconf

import (
	"fmt"
	"slices"
	"strings"

	"ssi/internal/config"
)

// bond makes a bond as configured; false: it cannot exist yet.
func (p *planner) bond(b bound) bool {
	want := wantedBond(*b.Bond)
	l := p.is.link(b.link)
	switch {
	case l == nil:
		p.do(Op{Verb: AddBond, Link: b.link, Bond: want})
	case l.Kind != "bond":
		p.wait(b.Label(), fmt.Sprintf("there is an interface %s already that is no bond", b.link))
		return false
	default:
		p.adaptBond(b, l.Bond, want)
	}
	p.members(b)
	return true
}

func wantedBond(c config.Bond) BondOptions {
	want := BondOptions{Mode: config.ActiveBackup, Miimon: c.Interval()}
	if c.LACP() {
		want.Mode, want.LACPRate = config.LACP, "fast"
		if c.SlowLACP() {
			want.LACPRate = "slow"
		}
	}
	return want
}

// adaptBond changes the options of a bond that exists, such as the bond0 that
// the module makes by itself. The mode can change only without members and
// down, the rate only down (drivers/net/bonding/bond_options.c).
func (p *planner) adaptBond(b bound, is, want BondOptions) {
	var change BondOptions
	if is.Mode != want.Mode {
		if p.inUse(b.link) {
			p.wait(b.Label(), fmt.Sprintf("its mode stays %s while the nodes talk over it", is.Mode))
			want.Mode, want.LACPRate = "", ""
		} else {
			for _, m := range p.is.Links {
				if m.Master == b.link {
					p.do(Op{Verb: Release, Link: m.Name, To: b.link})
				}
			}
			change.Mode = want.Mode
		}
	}
	if is.Miimon != want.Miimon {
		change.Miimon = want.Miimon
	}
	if want.LACPRate != "" && is.LACPRate != want.LACPRate {
		if p.inUse(b.link) {
			p.wait(b.Label(), fmt.Sprintf("its lacp_rate stays %s while the nodes talk over it", is.LACPRate))
		} else {
			change.LACPRate = want.LACPRate
		}
	}
	if change == (BondOptions{}) {
		return
	}
	if (change.Mode != "" || change.LACPRate != "") && p.is.link(b.link).Up {
		p.do(Op{Verb: Down, Link: b.link})
	}
	p.do(Op{Verb: SetBond, Link: b.link, Bond: change})
}

// members gives a bond its members, in the order of the configuration.
func (p *planner) members(b bound) {
	var wanted []string
	for _, name := range b.Bond.Members {
		l := p.member(name)
		if l == nil {
			p.wait(b.Label(), fmt.Sprintf("its member %s is missing", name))
			continue
		}
		wanted = append(wanted, l.Name)
	}
	for _, l := range slices.Clone(p.is.Links) {
		if l.Master == b.link && !slices.Contains(wanted, l.Name) {
			p.do(Op{Verb: Release, Link: l.Name, To: b.link})
		}
	}
	for _, name := range wanted {
		p.enslave(b, name)
	}
	if primary := p.member(b.Bond.Primary); primary != nil && primary.Master == b.link && p.is.link(b.link).Bond.Primary != primary.Name {
		p.do(Op{Verb: SetBond, Link: b.link, Bond: BondOptions{Primary: primary.Name}})
	}
}

// member finds a member by name or MAC address.
func (p *planner) member(name string) *Link {
	if l := p.is.link(name); l != nil {
		return l
	}
	for i := range p.is.Links {
		if l := &p.is.Links[i]; l.hardware() && l.MAC != "" && strings.EqualFold(l.MAC, name) {
			return l
		}
	}
	return nil
}

func (p *planner) enslave(b bound, name string) {
	l := p.is.link(name)
	switch {
	case l.Master == b.link:
		return
	case l.Master != "":
		p.wait(b.Label(), fmt.Sprintf("its member %s belongs to %s", name, l.Master))
		return
	case p.inUse(name):
		p.wait(b.Label(), fmt.Sprintf("its member %s does not join while the nodes talk over it", name))
		return
	}
	for _, a := range slices.Clone(l.Addrs) {
		if !a.Kernel {
			p.removeAddress(name, a.Prefix)
		}
	}
	if p.is.link(name).Up {
		p.do(Op{Verb: Down, Link: name})
	}
	p.do(Op{Verb: Enslave, Link: name, To: b.link})
}

// vlan makes a VLAN as configured; false: it cannot exist yet.
func (p *planner) vlan(b bound) bool {
	l := p.is.link(b.link)
	if l != nil && l.Kind != "vlan" {
		p.wait(b.Label(), fmt.Sprintf("there is an interface %s already that is no VLAN", b.link))
		return false
	}
	if p.is.link(b.VLAN.Parent) == nil {
		p.wait(b.Label(), fmt.Sprintf("the interface %s, which carries it, is missing", b.VLAN.Parent))
		return l != nil
	}
	if l != nil && (l.VLAN != b.VLAN.ID || l.Parent != b.VLAN.Parent) {
		if p.inUse(b.link) {
			p.wait(b.Label(), fmt.Sprintf("it stays VLAN %d of %s while the nodes talk over it", l.VLAN, l.Parent))
			return true
		}
		p.do(Op{Verb: Delete, Link: b.link})
		l = nil
	}
	if l == nil {
		p.do(Op{Verb: AddVLAN, Link: b.link, To: b.VLAN.Parent, Number: b.VLAN.ID})
	}
	return true
}
