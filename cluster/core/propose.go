package core

import (
	"slices"
	"time"

	"ssi/cluster/core/corepb"
	"ssi/cluster/member"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// proposal is a command of this node whose outcome is open.
type proposal struct {
	req      uint64
	own      bool // of the Core itself: no Outcome
	seq      uint64
	deadline time.Duration
	retryAt  time.Duration
	kind     Kind
	data     []byte
	handed   bool // it was handed to a leader: it may be carried out
}

// barrier is a wait for a state at least as new as its start.
type barrier struct {
	req      uint64
	deadline time.Duration
	retryAt  time.Duration
	seq      uint64 // of the question to the leader; 0: not asked yet
	index    uint64 // what to wait for; 0: not known yet
}

// Propose asks for a command to be carried out, once, on every node. The outcome
// comes by Output.Outcomes under req, by the deadline (a time of the clock that
// Tick tells).
func (c *Core) Propose(req uint64, deadline time.Duration, kind Kind, data []byte) {
	refuse := func(k errno.Kind, format string, args ...any) {
		c.outcomes = append(c.outcomes, Outcome{Req: req, Err: errno.New(k, "propose", c.cfg.Self, format, args...)})
	}
	switch {
	case kind != Membership && kind != App:
		refuse(errno.Invalid, "no commands of kind %d", kind)
	case len(data) > MaxCommand:
		refuse(errno.Full, "a command of %d bytes is over the limit of %d", len(data), MaxCommand)
	case c.leaving:
		refuse(errno.Fenced, "this node is leaving the cluster")
	case c.stuck():
		refuse(errno.NoQuorum, "nothing was done: %s", c.why())
	case len(c.pending) > 0 && c.nextSeq-c.pending[0].seq >= MaxPending-1: // one place is kept for the core
		refuse(errno.Full, "%d commands are open already; wait for some", MaxPending-1)
	default:
		if kind == Membership {
			data = c.bind(data)
		}
		c.addProposal(&proposal{req: req, deadline: deadline, kind: kind, data: data})
	}
}

// bind makes an operator's order to declare a node dead mean the life the node
// has now, not one that it might begin before the order is carried out.
func (c *Core) bind(data []byte) []byte {
	cmd, err := member.DecodeCommand(data)
	if err != nil || cmd.Op != member.SetState || cmd.To != member.KCleanup || cmd.Incarnation != 0 {
		return data
	}
	cmd.Incarnation = c.rep.members.Get(cmd.Node).Incarnation
	return cmd.Encode()
}

func (c *Core) addProposal(p *proposal) {
	p.seq, p.retryAt = c.nextSeq, c.now
	c.nextSeq++
	c.pending = append(c.pending, p)
}

// proposeOwn proposes a command of the Core itself, one at a time.
func (c *Core) proposeOwn(kind Kind, data []byte) {
	if len(c.pending) > 0 && c.nextSeq-c.pending[0].seq >= MaxPending {
		return
	}
	c.ownOpen = true
	c.addProposal(&proposal{own: true, deadline: c.now + 2*c.t.LeaderLease, kind: kind, data: data})
}

// Barrier asks when the local state is at least as new as everything that was
// acknowledged anywhere before this call; reads of the local state after that
// are linearizable. The outcome comes as for Propose.
func (c *Core) Barrier(req uint64, deadline time.Duration) {
	refuse := func(k errno.Kind, format string, args ...any) {
		c.outcomes = append(c.outcomes, Outcome{Req: req, Err: errno.New(k, "read", c.cfg.Self, format, args...)})
	}
	switch {
	case c.cfg.Info.Witness:
		refuse(errno.Invalid, "a witness answers no questions; ask another node")
	case c.stuck():
		refuse(errno.NoQuorum, "no answer: %s", c.why())
	case len(c.barriers) >= MaxPending:
		refuse(errno.Full, "%d reads are open already; wait for some", MaxPending)
	case c.cfg.faults.dirtyRead:
		c.outcomes = append(c.outcomes, Outcome{Req: req, Index: c.rep.index})
	default:
		c.barriers = append(c.barriers, &barrier{req: req, deadline: deadline, retryAt: c.now})
	}
}

// outcome ends a proposal; the caller takes it from the list.
func (c *Core) outcome(p *proposal, index uint64, res []byte, err error) {
	if p.own {
		c.ownOpen = false
		if p.kind == opening && err == nil {
			c.opened = true
		}
		return
	}
	if err == nil && p.kind == Membership {
		_, err = member.DecodeResult(res)
	}
	c.outcomes = append(c.outcomes, Outcome{Req: p.req, Index: index, Result: res, Err: err})
}

// settle ends the proposal with this seq, if it is open.
func (c *Core) settle(seq, index uint64, res []byte, err error) {
	i, ok := slices.BinarySearchFunc(c.pending, seq, func(p *proposal, seq uint64) int {
		switch {
		case p.seq < seq:
			return -1
		case p.seq > seq:
			return 1
		}
		return 0
	})
	if ok {
		c.outcome(c.pending[i], index, res, err)
		c.pending = slices.Delete(c.pending, i, i+1)
	}
}

// settleRestored ends the proposals that a snapshot, put in place of the
// entries, says were carried out.
func (c *Core) settleRestored() {
	s := c.rep.sessions[c.cfg.Self]
	if s == nil || s.incarnation != c.inc {
		return
	}
	for _, p := range slices.Clone(c.pending) {
		res, ok := s.results[p.seq]
		switch {
		case ok && res.dropped:
			c.settle(p.seq, res.index, nil, errno.New(errno.Unknown, "propose", c.cfg.Self, "the command was carried out, but its result was not kept"))
		case ok:
			c.settle(p.seq, res.index, res.data, nil)
		case p.seq < s.lowest:
			c.settle(p.seq, 0, nil, errno.New(errno.Unknown, "propose", c.cfg.Self, "the command was carried out or dropped; its result was not kept"))
		}
	}
}

// tickProposals ends what is overdue, and all that users wait for once nothing can
// be decided: they are told why at once.
func (c *Core) tickProposals() {
	stuck := c.stuck()
	for _, p := range slices.Clone(c.pending) {
		if c.now < p.deadline && (p.own || !stuck) {
			continue
		}
		if p.handed {
			c.settle(p.seq, 0, nil, errno.New(errno.Unknown, "propose", c.cfg.Self,
				"no answer in time; the command may have been carried out, or may yet be, at most once: %s", c.why()))
		} else {
			c.settle(p.seq, 0, nil, errno.New(errno.NoQuorum, "propose", c.cfg.Self, "nothing was done: %s", c.why()))
		}
	}
	c.barriers = slices.DeleteFunc(c.barriers, func(b *barrier) bool {
		late := c.now >= b.deadline || stuck
		if late {
			c.outcomes = append(c.outcomes, Outcome{Req: b.req, Err: errno.New(errno.NoQuorum, "read", c.cfg.Self, "no answer in time: %s", c.why())})
		}
		return late
	})
}

// flushOwn hands open proposals and barriers to the leader.
func (c *Core) flushOwn() {
	if c.lead != nil {
		c.flushOwnLocally()
	} else if c.leaderNode != 0 && c.leaderNode != c.cfg.Self {
		c.flushOwnTo(c.leaderNode)
	}
	c.barriers = slices.DeleteFunc(c.barriers, func(b *barrier) bool {
		done := b.index != 0 && c.rep.index >= b.index && !c.void
		if done {
			c.outcomes = append(c.outcomes, Outcome{Req: b.req, Index: b.index})
		}
		return done
	})
}

func (c *Core) flushOwnLocally() {
	if _, alive := c.self(); alive {
		for _, p := range c.due() {
			c.accept(c.cfg.Self, c.inc, []*corepb.Proposal{p})
		}
	}
	if len(c.barriers) > 0 && c.settled() && c.leading() {
		for _, b := range c.barriers {
			if b.index == 0 {
				b.index = c.rn.BasicStatus().GetCommit()
			}
		}
	}
}

func (c *Core) flushOwnTo(to id.Node) {
	if _, alive := c.self(); alive {
		for _, p := range c.due() {
			m := c.msg(to, len(p.GetData())+64)
			m.Proposals = append(m.Proposals, p)
		}
	}
	ask := false
	for _, b := range c.barriers {
		if b.index == 0 && c.now >= b.retryAt {
			if !ask {
				ask = true
				c.readSeq++
			}
			b.retryAt = c.now + c.t.Election/2
			if b.seq == 0 {
				b.seq = c.readSeq
			}
		}
	}
	if ask {
		c.msg(to, 16).Read = &corepb.Read{Seq: c.readSeq}
	}
}

// due is the proposals to hand to the leader now, again or for the first time.
func (c *Core) due() []*corepb.Proposal {
	var ps []*corepb.Proposal
	for _, p := range c.pending {
		if c.now < p.retryAt {
			continue
		}
		p.retryAt, p.handed = c.now+c.t.Election, true
		ps = append(ps, &corepb.Proposal{Seq: p.seq, Lowest: c.pending[0].seq, Kind: uint32(p.kind), Data: p.data})
	}
	return ps
}

// receiveRead answers another node's barrier.
func (c *Core) receiveRead(from id.Node, m *Message) {
	if c.settled() && c.leading() {
		c.msg(from, 32).ReadReply = &corepb.ReadReply{Seq: m.GetRead().GetSeq(), Index: c.rn.BasicStatus().GetCommit()}
	}
}

func (c *Core) receiveReadReply(m *Message) {
	r := m.GetReadReply()
	for _, b := range c.barriers {
		if b.seq != 0 && b.seq <= r.GetSeq() && r.GetSeq() <= c.readSeq && b.index == 0 {
			b.index = r.GetIndex()
		}
	}
}
