package netconf

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"ssi/internal/config"
)

var seedFlag = flag.Uint64("seed", 0, "replay this seed of TestPlanReaches")

// For any network and any configuration: the plan is one that the kernel would
// take, leads to what is wanted, keeps what is in use, and the next one is empty.
func TestPlanReaches(t *testing.T) {
	seeds := 20000
	if *seedFlag != 0 {
		seeds = 1
	}
	for i := range seeds {
		seed := uint64(i + 1)
		if *seedFlag != 0 {
			seed = *seedFlag
		}
		if err := tryPlan(rand.New(rand.NewPCG(seed, 7))); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func tryPlan(r *rand.Rand) error {
	in := Input{Interfaces: randomConfig(r), State: randomState(r), Leases: map[string]Lease{}, Now: time.Unix(1e9, 0)}
	for i := range 4 {
		switch r.IntN(3) {
		case 0:
			in.Leases[fmt.Sprintf("eth%d", i)] = Lease{}
		case 1:
			in.Leases[fmt.Sprintf("eth%d", i)] = Lease{Addr: randomPrefix(r), Router: netip.MustParseAddr("10.0.0.254"), Start: in.Now, Length: time.Hour}
		}
	}
	for _, l := range in.State.Links {
		if len(l.Addrs) > 0 && r.IntN(4) == 0 {
			in.InUse = append(in.InUse, l.Addrs[0].Prefix.Addr())
		}
	}
	before := in.State.clone()
	// What waited for an address in use may go on when the plan itself removed
	// that address (none): then there is a second plan, but no third.
	for round := range 4 {
		plan := MakePlan(in)
		if len(plan.Ops) == 0 {
			break
		}
		if round > 0 && (round > 2 || len(in.InUse) == 0) {
			return fmt.Errorf("plan %d is not empty: %v\n%+v", round+1, plan.Ops, in.Interfaces)
		}
		for _, op := range plan.Ops {
			if err := legal(in.State, op); err != nil {
				return fmt.Errorf("%v: %w\n%+v\n%v", op, err, in.Interfaces, plan.Ops)
			}
			in.State.apply(op)
		}
	}
	plan := MakePlan(in)
	if err := reached(in, plan, before); err != nil {
		return fmt.Errorf("%w\n%+v\nfrom %+v\nto %+v", err, in.Interfaces, before, in.State)
	}
	return nil
}

func randomPrefix(r *rand.Rand) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(2)), byte(1 + r.IntN(5))}), 24)
}

func randomState(r *rand.Rand) State {
	var s State
	for i := range r.IntN(5) {
		l := nic(i+1, fmt.Sprintf("eth%d", i))
		l.Up = r.IntN(2) == 0
		for range r.IntN(4) {
			a := Addr{Prefix: randomPrefix(r), Lifetime: r.IntN(2) * 100, Kernel: r.IntN(8) == 0}
			if !slices.ContainsFunc(l.Addrs, func(o Addr) bool { return o.Prefix == a.Prefix }) {
				l.Addrs = append(l.Addrs, a)
			}
		}
		s.Links = append(s.Links, l)
	}
	if r.IntN(3) == 0 {
		s.Links = append(s.Links, Link{Index: 10, Name: "bond0", Kind: "bond", Up: r.IntN(2) == 0, MTU: 1500, Bond: BondOptions{Mode: pick(r, "balance-rr", "active-backup", "802.3ad"), Miimon: r.IntN(2) * 100}})
		for i := range s.Links {
			if l := &s.Links[i]; l.Kind == "" && r.IntN(3) == 0 {
				l.Master, l.Up, l.Addrs = "bond0", true, nil
			}
		}
	}
	if len(s.Links) > 0 && r.IntN(3) == 0 {
		s.Links = append(s.Links, Link{Index: 11, Name: "v7", Kind: pick(r, "vlan", "bridge"), VLAN: 7 + r.IntN(2), Parent: s.Links[0].Name, MTU: 1500})
	}
	for _, l := range s.Links {
		if l.Up && len(l.Addrs) > 0 && r.IntN(2) == 0 {
			s.Routes = append(s.Routes, Route{To: netip.MustParsePrefix("10.9.0.0/16"), Link: l.Name, Metric: 1024 + l.Index})
		}
	}
	return s
}

func pick(r *rand.Rand, words ...string) string { return words[r.IntN(len(words))] }

func randomConfig(r *rand.Rand) []config.Interface {
	var out []config.Interface
	for i := range 4 {
		n := config.Interface{Name: fmt.Sprintf("eth%d", i)}
		switch r.IntN(5) {
		case 0:
			continue
		case 1:
			n = config.Interface{MAC: fmt.Sprintf("52:54:00:00:00:0%d", 1+i)}
		case 2:
			n.MAC = fmt.Sprintf("52:54:00:00:00:0%d", 1+(i+1)%4) // renames in a circle
		}
		switch r.IntN(5) {
		case 0:
			n.Address = []string{"none"}
		case 1:
			n.Address = []string{"dhcp"}
		case 2:
			n.Address = []string{randomPrefix(r).String()}
			n.Gateway = "10.0.0.254"
		case 3:
			n.Address, n.MTU = []string{randomPrefix(r).String(), "fd00::1/64"}, 1400
			n.Routes = []config.Route{{To: "10.9.0.0/16"}}
		}
		if n.MAC == "" || !slices.ContainsFunc(out, func(o config.Interface) bool { return o.MAC == n.MAC }) {
			out = append(out, n)
		}
	}
	// Members have no tables with addresses: the parser sees to that.
	if r.IntN(2) == 0 {
		out = slices.DeleteFunc(out, func(n config.Interface) bool { return n.Name == "eth2" || n.Name == "eth3" || n.MAC != "" })
		b := &config.Bond{Mode: pick(r, "", "active-backup", "802.3ad"), Members: []string{"eth2", "eth3"}, Miimon: r.IntN(2) * 50}
		if !b.LACP() && r.IntN(2) == 0 {
			b.Primary = "eth3"
		}
		out = append(out, config.Interface{Name: "bond0", Bond: b, Address: []string{"10.5.0.1/24"}, MTU: r.IntN(2) * 9000})
	}
	if r.IntN(2) == 0 {
		out = append(out, config.Interface{Name: "v7", VLAN: &config.VLAN{ID: 7, Parent: pick(r, "eth0", "bond0")}, Address: []string{"10.6.0.1/24"}})
	}
	return out
}

// legal is what the kernel demands of an operation.
func legal(s State, op Op) error {
	l := s.link(op.Link)
	members := 0
	for _, m := range s.Links {
		if m.Master == op.Link {
			members++
		}
	}
	bad := func(wrong bool, why string) error {
		if wrong {
			return fmt.Errorf("the kernel refuses: %s", why)
		}
		return nil
	}
	if op.Verb == AddBond || op.Verb == AddVLAN {
		return bad(l != nil || op.Verb == AddVLAN && s.link(op.To) == nil, "it exists, or its parent does not")
	}
	if l == nil {
		return bad(true, "there is no such link")
	}
	switch op.Verb {
	case Rename:
		return bad(l.Up || s.link(op.To) != nil, "up, or the name is taken")
	case Enslave:
		return bad(l.Up || l.Master != "" || s.link(op.To) == nil || s.link(op.To).Kind != "bond", "up, or a member already, or of no bond")
	case Release:
		return bad(l.Master != op.To, "no member")
	case SetBond:
		return bad(op.Bond.Mode != "" && (members > 0 || l.Up) || op.Bond.LACPRate != "" && l.Up || l.Kind != "bond", "the bond is up or has members")
	case RemoveAddress:
		return bad(!slices.ContainsFunc(l.Addrs, func(a Addr) bool { return a.Prefix == op.Addr.Prefix }), "no such address")
	case AddRoute:
		return bad(!l.Up, "the link is down")
	case RemoveRoute:
		return bad(!slices.Contains(s.Routes, op.Route), "no such route")
	}
	return nil
}

// reached compares the end with the configuration, without the planner's words.
func reached(in Input, plan Plan, before State) error {
	for _, a := range in.InUse {
		holds := func(s State) (n int) {
			for _, l := range s.Links {
				for _, o := range l.Addrs {
					if o.Prefix.Addr() == a {
						n++
					}
				}
			}
			return n
		}
		none := slices.ContainsFunc(in.Interfaces, func(n config.Interface) bool { return n.NoAddress() })
		if holds(before) == 1 && holds(in.State) == 0 && !none {
			return fmt.Errorf("%s is in use and gone", a)
		}
	}
	for _, b := range plan.Bound {
		i := slices.IndexFunc(in.Interfaces, func(n config.Interface) bool { return n.Label() == b.Label })
		n, l := in.Interfaces[i], in.State.link(b.Link)
		if l == nil {
			return fmt.Errorf("%s is bound to %s, which is not there", b.Label, b.Link)
		}
		if plan.Waits[b.Label] != "" {
			continue
		}
		if n.Name != "" && n.Name != l.Name || !l.Up {
			return fmt.Errorf("%s is %+v", b.Label, l)
		}
		if n.MTU != 0 && l.MTU != n.MTU && l.Master == "" {
			return fmt.Errorf("%s has the MTU %d", b.Label, l.MTU)
		}
		for _, p := range n.Prefixes() {
			if l.Master == "" && !slices.ContainsFunc(l.Addrs, func(a Addr) bool { return a.Prefix == p && a.Lifetime == 0 }) {
				return fmt.Errorf("%s has no %s", b.Label, p)
			}
		}
		for _, a := range l.Addrs {
			if n.NoAddress() && !a.Kernel && l.Master == "" {
				return fmt.Errorf("%s still has %s", b.Label, a.Prefix)
			}
		}
		if n.Bond != nil {
			for _, m := range n.Bond.Members {
				if in.State.link(m).Master != l.Name {
					return fmt.Errorf("%s is no member of %s", m, l.Name)
				}
			}
		}
		if n.VLAN != nil && (l.VLAN != n.VLAN.ID || l.Parent != n.VLAN.Parent) {
			return fmt.Errorf("%s is %+v", b.Label, l)
		}
	}
	return nil
}
