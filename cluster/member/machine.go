package member

import (
	"encoding/json"
	"slices"
	"sort"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// Machine is the replicated state itself. It is used by one goroutine; what
// View returns is for all.
type Machine struct {
	epoch    id.Epoch
	nodes    []Node // by number; replaced, not changed, once a view shares it
	init     id.Node
	initTerm uint64
	history  []Transition // only ever appended to, so that views can share it

	view *View // of the present state, or nil
}

// New is the membership of a cluster without nodes.
func New() *Machine { return &Machine{} }

// View is the present state.
func (m *Machine) View() *View {
	if m.view == nil {
		h := m.history[max(0, len(m.history)-MaxHistory):]
		m.view = &View{Epoch: m.epoch, Nodes: m.nodes, Init: m.init, InitTerm: m.initTerm, History: h[:len(h):len(h)]}
	}
	return m.view
}

// Get is the node with number n, in state NeverUp if there is none.
func (m *Machine) Get(n id.Node) Node { return m.View().Get(n) }

// Epoch is the number of the last transition.
func (m *Machine) Epoch() id.Epoch { return m.epoch }

// put stores n, keeping the views that were handed out as they are.
func (m *Machine) put(n Node) {
	i := sort.Search(len(m.nodes), func(i int) bool { return m.nodes[i].Node >= n.Node })
	nodes := make([]Node, 0, len(m.nodes)+1)
	nodes = append(nodes, m.nodes[:i]...)
	nodes = append(nodes, n)
	if i < len(m.nodes) && m.nodes[i].Node == n.Node {
		i++
	}
	m.nodes = append(nodes, m.nodes[i:]...)
	m.view = nil
}

func (m *Machine) drop(n id.Node) {
	m.nodes = slices.DeleteFunc(slices.Clone(m.nodes), func(x Node) bool { return x.Node == n })
	m.view = nil
}

// record numbers a transition and adds it to the history.
func (m *Machine) record(t Transition) Transition {
	m.epoch++
	t.Epoch = m.epoch
	if len(m.history) >= 2*MaxHistory {
		m.history = slices.Clone(m.history[len(m.history)-MaxHistory+1:])
	}
	m.history = append(m.history, t)
	m.view = nil
	return t
}

// move takes a node to another state.
func (m *Machine) move(n Node, to State, wall int64, cause string) (Node, Transition) {
	t := m.record(Transition{Wall: wall, Node: n.Node, Incarnation: n.Incarnation, From: n.State, To: to, Cause: cause})
	n.State, n.Since, n.SinceWall, n.Cause = to, t.Epoch, wall, cause
	m.put(n)
	return n, t
}

// Apply carries out c at the leader's wall time (ns since 1970). It returns the
// transitions it made, in order; on an error nothing was changed. A command that
// was already carried out succeeds without a transition.
func (m *Machine) Apply(c Command, wall int64) ([]Transition, error) {
	if !c.Node.Valid() {
		return nil, errno.New(errno.Invalid, string(c.Op), 0, "%d is not a node number (1 to %d)", c.Node, id.MaxNode)
	}
	n := m.Get(c.Node)
	cause := cut(c.Cause)
	fail := func(kind errno.Kind, format string, args ...any) ([]Transition, error) {
		return nil, errno.New(kind, string(c.Op), c.Node, format, args...)
	}
	step := func(to State) ([]Transition, error) {
		_, t := m.move(n, to, wall, cause)
		return []Transition{t}, nil
	}

	switch c.Op {
	case Join:
		return m.join(c, n, wall, cause)
	case InitTaken:
		return m.initTaken(c, n, wall, cause)
	case Leave:
		return m.leave(c, n, wall, cause)
	case SetState:
		if n.State == NeverUp {
			return fail(errno.NotFound, "no such node; `ssi cluster` lists those there are")
		}
		if c.To == KCleanup {
			// Only Expire takes a living node there, once it has surely fenced itself.
			if n.State.Alive() && n.Incarnation == c.Incarnation {
				return fail(errno.Unavailable, "the leader has changed; try again")
			}
			return nil, nil
		}
		if c.Incarnation != 0 && c.Incarnation != n.Incarnation {
			return fail(errno.Stale, "the node was started anew meanwhile")
		}
		if n.State == c.To {
			return nil, nil
		}
		if !n.State.Settable(c.To) {
			return fail(errno.Invalid, "a node in state %v cannot be set to %v", n.State, c.To)
		}
		return step(c.To)
	case Remove:
		if n.State == NeverUp {
			return fail(errno.NotFound, "no such node")
		}
		if n.State != Down {
			return fail(errno.Invalid, "it is %v; only a DOWN node can be removed", n.State)
		}
		t := m.record(Transition{Wall: wall, Node: n.Node, Incarnation: n.Incarnation, From: n.State, To: NeverUp, Cause: cause})
		m.drop(n.Node)
		return []Transition{t}, nil
	}

	if n.State == NeverUp || n.Incarnation != c.Incarnation {
		return fail(errno.Stale, "its incarnation %d is not the present one (%d)", c.Incarnation, n.Incarnation)
	}
	switch c.Op {
	case MarkUp:
		if n.State == Up {
			return nil, nil
		}
		if n.State != ComingUp {
			return fail(errno.Invalid, "it is %v, not COMINGUP", n.State)
		}
		return step(Up)
	case Expire:
		if !n.State.Alive() {
			return nil, nil
		}
		return step(KCleanup)
	case CleanupDone:
		switch {
		case c.To != UCleanup && c.To != Down:
			return fail(errno.Invalid, "cleanup ends in UCLEANUP or DOWN, not in %v", c.To)
		case n.State == c.To || n.State == Down:
			return nil, nil
		case n.State != c.To-1:
			return fail(errno.Invalid, "it is %v: it cannot go to %v", n.State, c.To)
		}
		return step(c.To)
	}
	return fail(errno.Invalid, "unknown membership command %q; is a node of another version?", c.Op)
}

func (m *Machine) join(c Command, n Node, wall int64, cause string) ([]Transition, error) {
	fail := func(kind errno.Kind, format string, args ...any) ([]Transition, error) {
		return nil, errno.New(kind, "join", c.Node, format, args...)
	}
	if c.Info == nil || c.Incarnation == 0 {
		return fail(errno.Invalid, "no description or incarnation of the node")
	}
	if err := c.Info.Check(); err != nil {
		return nil, err
	}
	switch {
	case n.State == NeverUp, n.State == Down && c.Incarnation > n.Incarnation:
	case c.Incarnation == n.Incarnation && n.State.Alive():
		return nil, nil
	case c.Incarnation <= n.Incarnation:
		return fail(errno.Stale, "incarnation %d is over; the newest known is %d", c.Incarnation, n.Incarnation)
	default:
		return fail(errno.Exists, "its life before is still %v; it joins when that is DOWN", n.State)
	}
	info := *c.Info
	info.Classes, info.Others = slices.Clone(info.Classes), slices.Clone(info.Others)
	joined := n.Joined
	if n.State == NeverUp || n.Left {
		joined = m.epoch + 1
	}
	n.Node, n.Info, n.Incarnation, n.Joined, n.Left = c.Node, info, c.Incarnation, joined, false
	_, t := m.move(n, ComingUp, wall, cause)
	return []Transition{t}, nil
}

func (m *Machine) leave(c Command, n Node, wall int64, cause string) ([]Transition, error) {
	if n.State == NeverUp || n.Incarnation != c.Incarnation {
		return nil, errno.New(errno.Stale, "leave", c.Node, "its incarnation %d is not the present one (%d)", c.Incarnation, n.Incarnation)
	}
	if !n.State.Alive() {
		return nil, nil
	}
	var ts []Transition
	n.Left = true
	for _, to := range []State{Shutdown, GoingDown, KCleanup} {
		if n.State < to {
			var t Transition
			n, t = m.move(n, to, wall, cause)
			ts = append(ts, t)
		}
	}
	return ts, nil
}

func (m *Machine) initTaken(c Command, n Node, wall int64, cause string) ([]Transition, error) {
	switch {
	case c.Term < m.initTerm || c.Term == m.initTerm && c.Node != m.init:
		return nil, errno.New(errno.Stale, "init", c.Node, "term %d is over: node %d holds init in term %d", c.Term, m.init, m.initTerm)
	case c.Term == m.initTerm:
		return nil, nil
	case !n.State.Alive() || n.Incarnation != c.Incarnation || !n.Info.Capable:
		return nil, errno.New(errno.Invalid, "init", c.Node, "it is no member that may be init")
	}
	m.init, m.initTerm = c.Node, c.Term
	t := m.record(Transition{Wall: wall, Node: c.Node, Incarnation: c.Incarnation, Init: true, Term: c.Term, Cause: cause})
	return []Transition{t}, nil
}

// snapshot is the form of the state in a snapshot.
type snapshot struct {
	Epoch    id.Epoch     `json:"epoch"`
	Nodes    []Node       `json:"nodes"`
	Init     id.Node      `json:"init"`
	InitTerm uint64       `json:"init_term"`
	History  []Transition `json:"history"`
}

// Snapshot writes the whole state down; equal states give equal bytes.
func (m *Machine) Snapshot() ([]byte, error) {
	v := m.View()
	return json.Marshal(snapshot{v.Epoch, v.Nodes, v.Init, v.InitTerm, v.History})
}

// Restore replaces the state by one that Snapshot wrote. On an error the state
// is as it was.
func (m *Machine) Restore(b []byte) error {
	bad := func(format string, args ...any) error {
		return errno.New(errno.Invalid, "restore the membership", 0, format, args...)
	}
	var s snapshot
	if err := json.Unmarshal(b, &s); err != nil {
		return bad("%w", err)
	}
	if len(s.History) > MaxHistory {
		return bad("a history of %d transitions is over the limit of %d", len(s.History), MaxHistory)
	}
	for i, n := range s.Nodes {
		if !n.Node.Valid() || n.State == NeverUp || n.State > Down || i > 0 && n.Node <= s.Nodes[i-1].Node {
			return bad("node entry %d is not valid", i)
		}
	}
	for i, t := range s.History {
		if want := s.Epoch - id.Epoch(len(s.History)-1-i); t.Epoch != want {
			return bad("transition %d stands where %d belongs", t.Epoch, want)
		}
	}
	*m = Machine{epoch: s.Epoch, nodes: s.Nodes, init: s.Init, initTerm: s.InitTerm, history: s.History}
	return nil
}
