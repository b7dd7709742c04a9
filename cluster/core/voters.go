package core

import (
	"slices"
	"sort"

	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"ssi/cluster/member"
	"ssi/internal/id"
)

// candidate is a node that may vote: with raftID as voter, or still without.
type candidate struct {
	node   member.Node
	raftID uint64 // of the voter it is; 0: none
	bad    bool   // voter that lost its log or is away for too long
	self   bool
}

// keeps reports whether this is the leader, and good as such.
func (k candidate) keeps() bool { return k.self && k.node.Info.Capable && !k.node.Left }

// target is how many voters a cluster of n nodes has.
func target(n, limit int) int {
	t := n
	switch {
	case n >= 15:
		t = 7
	case n >= 7:
		t = 5
	case n >= 3:
		t = 3
	}
	if t > limit {
		t = limit
		if t%2 == 0 && t > 2 {
			t--
		}
	}
	return t
}

// chooseVoters proposes the next step from the present voters to the wanted
// ones, if there is one to take. It is called by the leader, again and again.
func (c *Core) chooseVoters() {
	conf := c.rep.conf
	if len(conf.GetVotersOutgoing()) > 0 {
		return // on the way already
	}
	progress := map[uint64]tracker.Progress{}
	st := c.rn.Status()
	for x, pr := range st.Progress {
		progress[x] = pr
	}
	all, gone := c.candidates()
	want := all[:min(len(all), target(len(all), c.cfg.MaxVoters))]
	wanted := func(x uint64) bool {
		return slices.ContainsFunc(want, func(k candidate) bool { return k.raftID == x })
	}

	// Who is to become a voter, and is ready; the rest are made learners.
	var add []uint64
	var learn id.Node
	for _, k := range want {
		if k.raftID != 0 {
			continue
		}
		switch x := c.learnerOf(k.node.Node); {
		case x == 0 && learn == 0:
			learn = k.node.Node
		case x != 0 && ready(progress[x], st.GetCommit()):
			add = append(add, x)
		}
	}
	size := len(want)
	next := slices.DeleteFunc(slices.Clone(conf.GetVoters()), func(x uint64) bool { return slices.Contains(gone, x) })
	cut := len(next)
	next = append(next, add...)
	// Whoever is not wanted goes as soon as there are enough others: the bad first.
	for _, bad := range []bool{true, false} {
		for _, k := range slices.Backward(all) {
			if k.bad == bad && k.raftID != 0 && len(next) > size && !wanted(k.raftID) && !k.self {
				next = slices.DeleteFunc(next, func(x uint64) bool { return x == k.raftID })
			}
		}
	}
	if len(next) < size && len(next) > 2 && len(next)%2 == 0 && len(next) > cut {
		next = next[:cut] // an even count helps nobody: wait for one more
	}
	switch {
	case c.changeVoters(next, progress):
	case learn != 0:
		c.addLearner(learn)
	default:
		c.dropLearner(want)
	}
}

func ready(pr tracker.Progress, commit uint64) bool {
	return pr.IsLearner && pr.RecentActive && pr.State == tracker.StateReplicate && pr.Match+256 >= commit
}

// learnerOf is the usable learner ID of a node, or 0.
func (c *Core) learnerOf(n id.Node) uint64 {
	for _, x := range c.rep.conf.GetLearners() {
		if nodeOf(x) == n && !c.lost[x] {
			return x
		}
	}
	return 0
}

// candidates is every node that is or may become a voter, best first, and the
// voters that left for good.
func (c *Core) candidates() (all []candidate, gone []uint64) {
	l := c.lead
	seen := map[id.Node]bool{}
	for _, x := range c.rep.conf.GetVoters() {
		n := c.rep.members.Get(nodeOf(x))
		switch {
		case x == c.raftID: // never removes itself, see successor
			all = append(all, candidate{node: n, raftID: x, self: true})
			seen[nodeOf(x)] = true
		case n.State == member.NeverUp || n.Left && !n.State.Alive():
			gone = append(gone, x)
			seen[nodeOf(x)] = true
		case c.lost[x]:
			all = append(all, candidate{node: n, raftID: x, bad: true})
		default:
			away := c.now - max(l.heard[n.Node], l.since)
			all = append(all, candidate{node: n, raftID: x, bad: away > c.t.VoterGrace})
			seen[nodeOf(x)] = true
		}
	}
	for _, n := range c.View().Nodes {
		heard, ok := l.heard[n.Node]
		if n.State == member.Up && !seen[n.Node] && ok && c.now-heard < c.t.NodeLease {
			all = append(all, candidate{node: n})
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return better(all[i], all[j]) })
	// A node whose log is lost stands here twice; it counts once.
	for i := 0; i < len(all); i++ {
		if all[i].bad && c.lost[all[i].raftID] && slices.ContainsFunc(all, func(k candidate) bool { return k.node.Node == all[i].node.Node && k.raftID == 0 }) {
			all = append(all[:i:i], append(all[i+1:len(all):len(all)], all[i])...)
			if slices.IndexFunc(all[i:], func(k candidate) bool { return !k.bad }) < 0 {
				break
			}
			i--
		}
	}
	return all, gone
}

// better orders candidates: sound before bad, able to be init before others,
// voters before others, then by age.
func better(a, b candidate) bool {
	switch {
	case a.keeps() != b.keeps():
		return a.keeps()
	case a.bad != b.bad:
		return b.bad
	case a.node.Info.Capable != b.node.Info.Capable:
		return a.node.Info.Capable
	case (a.raftID != 0) != (b.raftID != 0):
		return a.raftID != 0
	case a.node.Joined != b.node.Joined:
		return a.node.Joined < b.node.Joined
	}
	return a.node.Node < b.node.Node
}

// changeVoters proposes to go from the present voters to next at once. It
// reports false when there is nothing to do, or it would leave no quorum.
func (c *Core) changeVoters(next []uint64, progress map[uint64]tracker.Progress) bool {
	var changes []*raftpb.ConfChangeSingle
	now := c.rep.conf.GetVoters()
	for _, x := range next {
		if !slices.Contains(now, x) {
			changes = append(changes, &raftpb.ConfChangeSingle{Type: raftpb.ConfChangeAddNode.Enum(), NodeId: new(x)})
		}
	}
	for _, x := range now {
		if !slices.Contains(next, x) {
			changes = append(changes, &raftpb.ConfChangeSingle{Type: raftpb.ConfChangeRemoveNode.Enum(), NodeId: new(x)})
		}
	}
	active := 0
	for _, x := range next {
		if x == c.raftID || progress[x].RecentActive {
			active++
		}
	}
	if len(changes) == 0 || active <= len(next)/2 {
		return false
	}
	c.changeConf(changes, "")
	return true
}

// addLearner gives a node a raft ID that nobody had before.
func (c *Core) addLearner(n id.Node) {
	x := raftIDOf(c.rep.gens[n].last+1, n)
	c.changeConf([]*raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeAddLearnerNode.Enum(), NodeId: new(x)}}, c.lead.process[n].String())
}

// dropLearner removes one learner that is of no use.
func (c *Core) dropLearner(want []candidate) {
	for _, x := range c.rep.conf.GetLearners() {
		n := c.rep.members.Get(nodeOf(x))
		useful := slices.ContainsFunc(want, func(k candidate) bool { return k.raftID == 0 && k.node.Node == n.Node })
		if c.lost[x] || !n.State.Alive() || !useful {
			c.changeConf([]*raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeRemoveNode.Enum(), NodeId: new(x)}}, "")
			return
		}
	}
}

// changeConf proposes a change; raft drops it while another is under way. The
// context of a new learner is the process it is meant for.
func (c *Core) changeConf(changes []*raftpb.ConfChangeSingle, context string) {
	cc := &raftpb.ConfChangeV2{Changes: changes, Context: []byte(context)}
	if _, err := changed(c.rep.conf, cc); err != nil {
		return
	}
	c.step(func() { _ = c.rn.ProposeConfChange(cc) })
}
