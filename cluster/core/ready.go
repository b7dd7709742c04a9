package core

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"ssi/cluster/member"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// Ready is what there is to do now, or nil. The caller carries it out, calls
// Advance, and asks again.
func (c *Core) Ready() *Output {
	if c.fatal == nil {
		c.flushOwn()
	}
	if c.fatal == nil && c.lead != nil {
		c.flushBatch()
	}
	if c.fatal == nil && c.lead != nil {
		c.pumpFeeds()
	}
	c.pumpTransfers()

	out := &Output{}
	if c.forced != nil && c.fatal == nil {
		out = c.forced
		c.rn = nil // until Advance: it would go on from what is over
	} else if c.fatal == nil && c.rn != nil && c.rn.HasReady() {
		c.step(func() { c.takeReady(out) })
		if c.fatal == nil {
			c.flushOwn() // barriers that waited for what was just applied
		}
	}
	if c.fatal != nil {
		if c.fatalSaid {
			return nil
		}
		c.fatalSaid = true
		return &Output{Status: c.Status(), Fatal: c.fatal, Notices: c.notices}
	}
	out.DropRaft, out.NewRaft, out.Compact = c.dropRaft, c.newRaft, c.compact
	out.Messages, out.Transitions, out.Outcomes, out.Notices = c.outs, c.transitions, c.outcomes, c.notices
	out.Applied, out.Restored = c.rep.index, c.restored
	out.Status = c.Status()
	idle := c.ready == nil && c.forced == nil && !out.DropRaft && out.NewRaft == nil && out.Compact == nil && len(out.Messages)+len(out.Transitions)+
		len(out.Outcomes)+len(out.Notices) == 0 && !out.Restored && out.Status.equal(&c.last)
	if idle {
		return nil
	}
	c.last = out.Status
	c.outs, c.transitions, c.outcomes, c.notices = nil, nil, nil, nil
	c.dropRaft, c.newRaft, c.compact, c.restored = false, nil, nil, false
	clear(c.open)
	return out
}

// Advance tells that the last Output was carried out.
func (c *Core) Advance() {
	if c.forced != nil && c.fatal == nil {
		c.goOnAlone()
		return
	}
	if c.ready == nil || c.rn == nil || c.fatal != nil {
		c.ready = nil
		return
	}
	rd := *c.ready
	c.ready = nil
	c.step(func() { c.rn.Advance(rd) })
}

// takeReady moves what raft wants into out, and applies what is committed.
func (c *Core) takeReady(out *Output) {
	rd := c.rn.Ready()
	c.ready = &rd
	out.HardState, out.Entries, out.MustSync = rd.HardState, rd.Entries, rd.MustSync
	if !raft.IsEmptySnap(rd.Snapshot) {
		out.Snapshot, out.MustSync = rd.Snapshot, true
		c.restore(rd.Snapshot.GetMetadata(), rd.Snapshot.GetData())
		c.snapIndex, c.grown = rd.Snapshot.GetMetadata().GetIndex(), 0
	}
	for _, rm := range rd.Messages {
		if rm.GetType() == raftpb.MsgSnap {
			c.sendSnapshot(rm)
			continue
		}
		b, err := proto.Marshal(rm)
		if err != nil {
			c.fail(err)
			return
		}
		m := c.raftMsg(rm.GetTo(), len(b)+8)
		m.Raft = append(m.Raft, b)
	}
	for _, e := range rd.CommittedEntries {
		// Who was removed may drop its log once this node has said so: this node
		// must not forget it.
		out.MustSync = out.MustSync || e.GetType() != raftpb.EntryNormal
		if c.fatal == nil {
			c.applyEntry(e)
		}
	}
	if c.fatal == nil && (c.rep.index-c.snapIndex >= c.cfg.SnapshotEntries || c.grown >= c.cfg.SnapshotBytes) {
		c.takeCompact()
	}
}

// takeCompact asks the caller to keep the present state as snapshot.
func (c *Core) takeCompact() {
	data, err := c.rep.snapshot()
	if err != nil {
		c.notice("the log cannot be compacted: %v", err)
		c.grown = 0
		return
	}
	keep := uint64(1)
	if k := min(uint64(keepEntries), c.cfg.SnapshotEntries); c.rep.index > k {
		keep = c.rep.index - k + 1
	}
	c.compact = &Compact{Index: c.rep.index, ConfState: proto.Clone(c.rep.conf).(*raftpb.ConfState), Data: data, Keep: keep}
	c.snapIndex, c.grown = c.rep.index, 0
}

// restore replaces the state by a snapshot's.
func (c *Core) restore(meta *raftpb.SnapshotMetadata, data []byte) {
	epoch := c.rep.members.Epoch()
	if c.void {
		epoch = 0
	}
	if err := c.rep.restore(meta, data); err != nil {
		c.fail(err)
		return
	}
	c.void, c.restored = false, true
	c.forgetLost()
	ts, complete := c.View().Since(epoch)
	if !complete {
		c.notice("transitions of the membership before %d were missed", c.View().Epoch)
	}
	c.transitions = append(c.transitions, ts...)
	c.settleRestored()
	c.noteSelf()
}

// applyEntry applies the next committed entry and does what it means for this
// node.
func (c *Core) applyEntry(e *raftpb.Entry) {
	a, err := c.rep.apply(e)
	if err != nil {
		c.fail(err)
		return
	}
	c.grown += uint64(len(e.GetData())) + 32
	if a.conf != nil {
		if c.rn != nil {
			c.rn.ApplyConfChange(a.conf)
		}
		c.forgetLost()
		c.noteAssigned(a.conf)
	} else if e.GetType() != raftpb.EntryNormal && c.rn != nil && c.lead != nil {
		c.notice("a change of the voters did not fit any more and was dropped")
	}
	for _, t := range a.transitions {
		c.transitions = append(c.transitions, t)
		if c.lead != nil && !t.Init && t.To == member.ComingUp {
			c.lead.renewed[t.Node] = c.now
		}
	}
	if len(a.transitions) > 0 {
		c.noteSelf()
	}
	if env := a.env; env != nil && id.Node(env.GetNode()) == c.cfg.Self && id.Incarnation(env.GetIncarnation()) == c.inc && !a.repeated {
		if a.refused {
			c.settle(env.GetSeq(), 0, nil, errno.New(errno.Stale, "propose", c.cfg.Self, "this node was declared dead or has left; nothing was done"))
		} else {
			c.settle(env.GetSeq(), c.rep.index, a.result, nil)
		}
	}
}

// noteSelf begins a new life when the cluster declared this one dead.
func (c *Core) noteSelf() {
	n := c.rep.members.Get(c.cfg.Self)
	if n.State != member.NeverUp && !n.State.Alive() && n.Incarnation >= c.inc && !c.leaving && c.started {
		c.newLife(n.Incarnation+1, "the cluster declared it dead")
	}
	// Between joining and the first lease, and between the end of an earlier life and
	// joining, the cluster waits for this node's next hello.
	entry := ownEntry{n.State, n.Incarnation}
	if entry != c.entry && (n.State == member.ComingUp || n.State == member.Down) {
		c.helloAt = min(c.helloAt, c.now)
	}
	c.entry = entry
}

// ownEntry is what the members' list says of this node.
type ownEntry struct {
	state       member.State
	incarnation id.Incarnation
}

// noteAssigned takes a raft ID that was made for this very process. Another one,
// reading the same entry again, might have had a log under that ID and lost it.
func (c *Core) noteAssigned(cc *raftpb.ConfChangeV2) {
	if c.rn != nil || c.assigned != 0 || c.leaving || string(cc.GetContext()) != c.process().String() {
		return
	}
	for _, ch := range cc.GetChanges() {
		if ch.GetType() == raftpb.ConfChangeAddLearnerNode && nodeOf(ch.GetNodeId()) == c.cfg.Self {
			snap, err := c.rep.snapshotAt()
			if err != nil {
				c.notice("this node cannot become a voter: %v", err)
				return
			}
			c.assigned = ch.GetNodeId()
			c.newRaft = &NewRaft{RaftID: c.assigned, Recovery: c.recovery, Snapshot: snap}
		}
	}
}

// Status is what this node is and may do now.
func (c *Core) Status() Status {
	n, alive := c.self()
	s := Status{
		Node: c.cfg.Self, Incarnation: c.inc, Leader: c.leaderNode, Term: max(c.term, c.leaderTerm), RaftID: c.raftID,
		Voter: c.isVoter(), Left: c.left(), Foreign: c.foreign, Applied: c.rep.index,
	}
	if n.Incarnation == c.inc {
		s.State = n.State
	}
	s.ServingUntil, s.Reason = c.serving()
	s.Serving = s.Reason == ""
	s.Voters = c.voterNodes()
	for _, x := range slices.Concat(c.rep.conf.GetLearners(), c.rep.conf.GetLearnersNext()) {
		s.Learners = append(s.Learners, nodeOf(x))
	}
	s.Lost = c.lostVoters()
	if until, held := c.leaderLease(); held && c.settled() && c.fatal == nil {
		s.Lead = Hold{Held: true, Term: c.lead.term, Until: until}
		v := c.View()
		if v.Init == c.cfg.Self && v.InitTerm == c.lead.term && alive && s.Serving && !c.leaving {
			s.Init = Hold{Held: true, Term: c.lead.term, Until: min(until, s.ServingUntil)}
		}
		for _, m := range v.Nodes {
			if m.State == member.KCleanup || m.State == member.UCleanup {
				s.Cleanup = append(s.Cleanup, Cleanup{Node: m.Node, Incarnation: m.Incarnation, To: m.State + 1})
			}
		}
	}
	if c.fatal != nil {
		s.Problem = c.fatal.Error()
	} else if s.Lead.Held && !c.cfg.Info.Capable {
		s.Problem = "the cluster has no init: this node leads but may not be init, and no voter that may be is up; start one"
	} else if c.stuck() {
		s.Problem = c.why()
	} else {
		s.Problem = c.fragile(s.Lost)
	}
	return s
}
