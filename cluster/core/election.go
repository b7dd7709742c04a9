package core

import (
	"bytes"
	"slices"
	"sort"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"ssi/cluster/core/corepb"
	"ssi/internal/id"
)

// raft's own election clock stays still: followers and candidates are never
// ticked. Its timeout would be random, and up to twice as long as needed. The
// core decides when to campaign and when a voter is free of its promise, and
// tells raft by Campaign and ForgetLeader.

// transferContext marks the votes of a leadership transfer (raft's
// campaignTransfer).
const transferContext = "CampaignTransfer"

// step feeds raft and takes note of what became of it.
func (c *Core) step(f func()) {
	defer func() {
		if p := recover(); p != nil {
			c.fail(raftPanic{p})
		}
	}()
	f()
	c.syncRaft()
}

// syncRaft takes note of raft's term, leader and role.
func (c *Core) syncRaft() {
	bs := c.rn.BasicStatus()
	if bs.GetTerm() > c.term {
		c.term = bs.GetTerm()
		c.planCampaign(c.t.Election / 2) // someone campaigns: give it time
	}
	c.raftLead = bs.Lead
	leads := bs.RaftState == raft.StateLeader
	if c.lead != nil && (!leads || c.lead.term != bs.GetTerm()) {
		c.lead = nil
		if c.leaderNode == c.cfg.Self {
			c.loseLeader()
		}
		clear(c.xfers)
		c.planCampaign(c.t.Election)
	}
	switch {
	case leads && c.lead == nil:
		c.lead = newLeader(bs.GetTerm(), c.now)
		c.setLeader(c.cfg.Self, bs.GetTerm())
	case !leads && bs.Lead != 0:
		c.setLeader(nodeOf(bs.Lead), bs.GetTerm())
	}
}

// guarded reports whether this voter is bound by its promise to a leader.
func (c *Core) guarded() bool {
	if c.lead != nil {
		_, held := c.leaderLease()
		return held
	}
	return c.now < c.contact+c.t.Election
}

// release lets raft vote once the promise has run out.
func (c *Core) release() {
	if c.lead == nil && c.raftLead != 0 && !c.guarded() {
		if nodeOf(c.raftLead) == c.leaderNode {
			c.loseLeader()
		}
		c.step(func() { _ = c.rn.ForgetLeader() })
	}
}

func (c *Core) tickRaft() {
	c.release()
	switch {
	case c.lead != nil || !c.isVoter() || c.fatal != nil:
	case len(c.voters()) == 1: // nobody else could lead or be promised to
		c.step(func() { _ = c.rn.Campaign() })
	case c.now >= c.campaignAt && !c.guarded():
		c.step(func() { _ = c.rn.Campaign() })
		// A lost pre-vote costs nothing: others may have been bound a moment longer.
		c.campaignAt = c.now + time.Duration(len(c.voters())+1)*c.t.Step + time.Duration(c.rng.Int64N(int64(c.t.Step)))
	}
}

// planCampaign sets when to campaign unless a leader is heard of: wait from now,
// and then in turn by rank, so that the best voter campaigns alone.
func (c *Core) planCampaign(wait time.Duration) {
	if wait == 0 {
		wait = c.t.Election
	}
	c.campaignAt = c.now + wait + time.Duration(1+c.rank())*c.t.Step
}

// rank is this voter's place among those who might lead: those who may be init
// and are up first, then the oldest members.
func (c *Core) rank() int {
	var nodes []id.Node
	for _, x := range c.voters() {
		if nodeOf(x) != c.leaderNode || x == c.raftID {
			nodes = append(nodes, nodeOf(x))
		}
	}
	members := c.rep.members
	sort.SliceStable(nodes, func(i, j int) bool {
		a, b := members.Get(nodes[i]), members.Get(nodes[j])
		fa, fb := a.Info.Capable && a.State.Alive(), b.Info.Capable && b.State.Alive()
		if fa != fb {
			return fa
		}
		if a.Joined != b.Joined {
			return a.Joined < b.Joined
		}
		return nodes[i] < nodes[j]
	})
	r := slices.Index(nodes, c.cfg.Self)
	if !c.cfg.Info.Capable {
		r += 4 // it could only hand over again
	}
	return r
}

// receiveRaft takes the raft messages of a node.
func (c *Core) receiveRaft(from id.Node, m *Message) {
	if c.rn == nil || m.GetRaftTo() != c.raftID {
		return
	}
	for _, b := range m.GetRaft() {
		rm := &raftpb.Message{}
		if err := proto.Unmarshal(b, rm); err != nil || rm.GetType() == raftpb.MsgSnap || !c.acceptable(from, rm) {
			continue
		}
		c.stepMessage(rm)
		if c.fatal != nil || c.rn == nil {
			return
		}
	}
}

// acceptable reports whether rm is something its sender may say.
func (c *Core) acceptable(from id.Node, rm *raftpb.Message) bool {
	if nodeOf(rm.GetFrom()) != from || rm.GetFrom()>>16 == 0 || rm.GetTo() != c.raftID || rm.GetTerm() == 0 {
		return false
	}
	switch rm.GetType() {
	case raftpb.MsgApp, raftpb.MsgAppResp, raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp,
		raftpb.MsgTimeoutNow, raftpb.MsgPreVote, raftpb.MsgPreVoteResp, raftpb.MsgSnap:
	default:
		return false
	}
	for i, e := range rm.GetEntries() {
		if e == nil || e.GetIndex() != rm.GetIndex()+1+uint64(i) {
			return false
		}
	}
	return true
}

func (c *Core) stepMessage(rm *raftpb.Message) {
	if t := rm.GetType(); t == raftpb.MsgVote || t == raftpb.MsgPreVote {
		if c.cfg.faults.noGuard {
			c.step(func() { _ = c.rn.ForgetLeader() })
		} else if c.guarded() && !bytes.Equal(rm.GetContext(), []byte(transferContext)) {
			return
		}
		c.release()
	}
	c.step(func() { _ = c.rn.Step(rm) })
}

// receiveBeat answers the leader's round, and so promises to vote for no other.
func (c *Core) receiveBeat(from id.Node, m *Message) {
	b := m.GetBeat()
	if c.rn == nil || c.lead != nil || m.GetRaftTo() != c.raftID || b.GetTerm() != c.term ||
		c.raftLead == 0 || nodeOf(c.raftLead) != from {
		return
	}
	c.contact = c.now
	c.planCampaign(0)
	c.msg(from, 0).BeatAck = &corepb.Beat{Term: b.GetTerm(), Seq: b.GetSeq()}
	c.open[from].msg.RaftTo = c.raftLead
}

// raftPanic is what raft panicked with: its state contradicts itself.
type raftPanic struct{ v any }

func (p raftPanic) Error() string {
	if err, ok := p.v.(error); ok {
		return "consensus state contradicts itself: " + err.Error()
	}
	if s, ok := p.v.(string); ok {
		return "consensus state contradicts itself: " + s
	}
	return "consensus state contradicts itself"
}
