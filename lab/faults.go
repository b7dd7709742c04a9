package lab

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// maxDelay is the longest delay of a frame.
const maxDelay = 10 * time.Second

// link is what one node sends to another; with to 0 all that the node sends and
// receives.
type link struct{ from, to id.Node }

// rule is what happens to a frame.
type rule struct {
	cut   bool
	delay time.Duration
	loss  float64
}

// and is the rule of both, one after the other.
func (r rule) and(o rule) rule {
	return rule{cut: r.cut || o.cut, delay: r.delay + o.delay, loss: 1 - (1-r.loss)*(1-o.loss)}
}

// faults is the table of all faults of a lab. It is pure; its owner guards it.
type faults struct {
	rules map[link]rule
}

func newFaults() *faults { return &faults{rules: map[link]rule{}} }

// change applies a request. An unfit request changes nothing.
func (f *faults) change(p faultParams) error {
	switch {
	case p.A == 0 && (p.Set != healAll || p.B != 0), p.A == p.B && p.A != 0:
		return errno.New(errno.Invalid, p.Set, 0, "name one node or two different ones")
	case p.Set == setCut && p.B == 0:
		return errno.New(errno.Invalid, p.Set, 0, "name the two nodes to cut from each other")
	case p.OneWay && p.B == 0:
		return errno.New(errno.Invalid, p.Set, 0, "one way needs two nodes")
	case p.Delay < 0 || p.Delay > maxDelay:
		return errno.New(errno.Invalid, p.Set, 0, "a delay of %v: it must be 0 to %v", p.Delay, maxDelay)
	case !(p.Loss >= 0 && p.Loss <= 1):
		return errno.New(errno.Invalid, p.Set, 0, "a loss of %v%%: it must be 0%% to 100%%", p.Loss*100)
	}
	var edit func(*rule)
	switch p.Set {
	case setCut:
		edit = func(r *rule) { r.cut = true }
	case setDelay:
		edit = func(r *rule) { r.delay = p.Delay }
	case setLoss:
		edit = func(r *rule) { r.loss = p.Loss }
	case healAll:
		f.heal(p)
		return nil
	default:
		return errno.New(errno.Invalid, "fault", 0, "no kind of fault: %q", p.Set)
	}
	f.edit(link{p.A, p.B}, edit)
	if p.B != 0 && !p.OneWay {
		f.edit(link{p.B, p.A}, edit)
	}
	return nil
}

func (f *faults) edit(l link, edit func(*rule)) {
	r := f.rules[l]
	edit(&r)
	if r == (rule{}) {
		delete(f.rules, l)
	} else {
		f.rules[l] = r
	}
}

// heal removes all faults, those of node A, or those between A and B.
func (f *faults) heal(p faultParams) {
	maps.DeleteFunc(f.rules, func(l link, _ rule) bool {
		switch {
		case p.A == 0:
			return true
		case p.B == 0:
			return l.from == p.A || l.to == p.A
		case l == link{p.A, p.B}:
			return true
		}
		return l == link{p.B, p.A} && !p.OneWay
	})
}

// list is the table, sorted.
func (f *faults) list() []Fault {
	list := make([]Fault, 0, len(f.rules))
	for l, r := range f.rules {
		list = append(list, Fault{From: l.from, To: l.to, Cut: r.cut, Delay: r.delay, Loss: r.loss})
	}
	slices.SortFunc(list, func(a, b Fault) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To)) })
	return list
}

// plan is what the wire of one node does. It never changes once made.
type plan struct {
	out    rule             // for what the node sends
	in     rule             // for what it receives from a node without entry in inFrom
	inFrom map[id.Node]rule // by sender
}

// plan is the plan for node n, or nil when no fault needs a wire there. A fault
// between two nodes acts where its frames arrive, so that broadcasts meet it too.
func (f *faults) plan(n id.Node) *plan {
	own, has := f.rules[link{n, 0}]
	p := &plan{out: own, in: own, inFrom: map[id.Node]rule{}}
	for l, r := range f.rules {
		if l.to == n {
			p.inFrom[l.from] = r.and(own)
			has = true
		}
	}
	if !has {
		return nil
	}
	return p
}

// toward is the rule for a frame that the sender from sends to the node.
func (p *plan) toward(from id.Node) rule {
	if r, ok := p.inFrom[from]; ok {
		return r
	}
	return p.in
}
