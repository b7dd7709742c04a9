package member

import (
	"sort"

	"ssi/internal/id"
)

// Info is what a node says about itself when it joins.
type Info struct {
	Name    string   `json:"name,omitempty"`
	Addr    string   `json:"addr"`             // host:port of its ICS
	Others  []string `json:"others,omitempty"` // more addresses of it, on other interconnects; the preferred first
	Capable bool     `json:"capable,omitempty"`
	Witness bool     `json:"witness,omitempty"` // votes only; no node for anything else
	Classes []string `json:"classes,omitempty"`
}

// Node is one member, past or present.
type Node struct {
	Node        id.Node        `json:"node"`
	Info        Info           `json:"info"`
	Incarnation id.Incarnation `json:"incarnation"`
	State       State          `json:"state"`
	Since       id.Epoch       `json:"since"`          // transition into State
	SinceWall   int64          `json:"since_wall"`     // its time: leader's wall clock, ns since 1970
	Joined      id.Epoch       `json:"joined"`         // transition of the first join since it was last removed or had left
	Left        bool           `json:"left,omitempty"` // it went orderly and is not expected back
	Cause       string         `json:"cause,omitempty"`
}

// Transition is one numbered change of the membership. With Init set, Node took
// init in raft term Term; otherwise Node went From one state To another.
type Transition struct {
	Epoch       id.Epoch       `json:"epoch"`
	Wall        int64          `json:"wall"` // leader's wall clock, ns since 1970
	Node        id.Node        `json:"node"`
	Incarnation id.Incarnation `json:"incarnation"`
	From        State          `json:"from,omitempty"`
	To          State          `json:"to,omitempty"`
	Init        bool           `json:"init,omitempty"`
	Term        uint64         `json:"term,omitempty"`
	Cause       string         `json:"cause,omitempty"`
}

// View is the membership at one moment. It and all it points to never change;
// it may be handed to any goroutine.
type View struct {
	Epoch    id.Epoch
	Nodes    []Node // by number
	Init     id.Node
	InitTerm uint64
	History  []Transition // oldest first, at most MaxHistory
}

// Get is the node with number n; for an unknown number a Node in state NeverUp.
func (v *View) Get(n id.Node) Node {
	i := sort.Search(len(v.Nodes), func(i int) bool { return v.Nodes[i].Node >= n })
	if i < len(v.Nodes) && v.Nodes[i].Node == n {
		return v.Nodes[i]
	}
	return Node{Node: n}
}

// Since is the part of the history after epoch e; complete is false when older
// transitions after e were dropped.
func (v *View) Since(e id.Epoch) (ts []Transition, complete bool) {
	i := sort.Search(len(v.History), func(i int) bool { return v.History[i].Epoch > e })
	complete = e >= v.Epoch || (i < len(v.History) && v.History[i].Epoch == e+1)
	return v.History[i:len(v.History):len(v.History)], complete
}
