package core

import (
	"fmt"
	"maps"
	"slices"

	"ssi/cluster/core/corepb"
	"ssi/internal/id"
)

// A voter whose log is lost (its disk was replaced, its state was in memory) still
// has its seat until a new log has caught up, but it cannot vote: the cluster is
// nearer to its end than the number of its voters tells. The node itself says so,
// in its first hello; the leader tells all, so that every node shows it. A raft ID
// whose log is lost never comes back, so nobody has to take it back.

// maxLost bounds what is taken of one message: no configuration has more voters
// and learners.
const maxLost = 32

// noteLost takes what a hello says of the sender's older raft IDs.
func (c *Core) noteLost(from id.Node, inc id.Incarnation, h *corepb.Hello) {
	news := false
	for _, x := range raftIDs(c.rep.conf) {
		if nodeOf(x) == from && x != h.GetRaftId() && !c.lost[x] && c.knowsOf(x, inc, h) {
			c.lost[x], news = true, true
		}
	}
	if news {
		c.lead.announced = false
		c.announce()
	}
}

// knowsOf reports whether the process that says hello would have the log of raft
// ID x if there were one: it has seen that x was given, or it is younger than the
// process that x was given to. (A late hello of an older process is of an older
// life, whatever its clock said.)
func (c *Core) knowsOf(x uint64, inc id.Incarnation, h *corepb.Hello) bool {
	gen := c.rep.gens[nodeOf(x)]
	return h.GetApplied() >= c.rep.added[x] ||
		gen.last == x>>16 && inc >= c.rep.members.Get(nodeOf(x)).Incarnation && process{h.GetOrigin(), h.GetProcess()}.after(gen.to)
}

// takeLost takes what the leader says.
func (c *Core) takeLost(ids []uint64) {
	for _, x := range ids[:min(len(ids), maxLost)] {
		if slices.Contains(raftIDs(c.rep.conf), x) {
			c.lost[x] = true
		}
	}
}

// forgetLost drops what a change of the configuration removed.
func (c *Core) forgetLost() {
	if len(c.lost) > 0 {
		ids := raftIDs(c.rep.conf)
		maps.DeleteFunc(c.lost, func(x uint64, _ bool) bool { return !slices.Contains(ids, x) })
	}
}

// lostIDs is the raft IDs whose log is lost, ascending.
func (c *Core) lostIDs() []uint64 {
	if len(c.lost) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(c.lost))
}

// lostVoters is the nodes whose seat has lost its log.
func (c *Core) lostVoters() (nodes []id.Node) {
	voters := c.voters()
	for _, x := range c.lostIDs() {
		n := nodeOf(x)
		sound := func(y uint64) bool { return nodeOf(y) == n && !c.lost[y] }
		if slices.Contains(voters, x) && !slices.ContainsFunc(voters, sound) {
			nodes = append(nodes, n)
		}
	}
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

// fragile says which nodes must not go while others have lost their logs; empty
// when any one may.
func (c *Core) fragile(lost []id.Node) string {
	if len(lost) == 0 {
		return ""
	}
	var sound []id.Node
	voters := c.voters()
	for _, x := range voters {
		if n := nodeOf(x); !slices.Contains(lost, n) && c.rep.members.Get(n).State.Alive() {
			sound = append(sound, n)
		}
	}
	slices.Sort(sound)
	if sound = slices.Compact(sound); len(sound) > len(voters)/2+1 {
		return ""
	}
	return fmt.Sprintf("%s lost the copy of the cluster's state and %s a new one; until that is there %s must not go: each vote left is needed to decide",
		nodesText(lost), plural(lost, "gets", "get"), nodesText(sound))
}
