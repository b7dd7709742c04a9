package core

import (
	"encoding/json"
	"slices"
	"time"

	"ssi/cluster/core/corepb"
	"ssi/cluster/member"
	"ssi/internal/id"
)

// tickHello says hello to the leader, or looks for one.
func (c *Core) tickHello() {
	if c.lead != nil || c.now < c.helloAt {
		if c.lead != nil {
			c.helloAt = c.now + c.t.NodeLease/4
		}
		return
	}
	to := c.leaderNode
	if c.missed >= 3 && to != 0 {
		c.loseLeader()
		to = 0
	}
	if to == 0 || to == c.cfg.Self {
		if to = c.hint; to == 0 {
			to = c.nextContact()
		}
		c.hint = 0
	}
	c.hello(to)
}

// hello sends one; the next is due soon unless this one is answered.
func (c *Core) hello(to id.Node) {
	c.helloAt = c.now + c.t.NodeLease/10
	if to == 0 {
		return
	}
	c.helloLast = c.now
	c.missed++
	c.msg(to, 512).Hello = c.helloBody(c.now)
}

func (c *Core) helloBody(sent time.Duration) *corepb.Hello {
	h := &corepb.Hello{Sent: uint64(sent), Applied: c.rep.index, RaftId: max(c.raftID, c.assigned), Leaving: c.leaving,
		Origin: c.process().origin, Process: c.process().start}
	if c.void {
		h.Applied = 0
	}
	if _, alive := c.self(); !alive {
		if info, err := json.Marshal(c.cfg.Info); err == nil { // plain data
			h.Info = info
		}
	}
	return h
}

// nextContact goes through all nodes that might know the leader, and through the
// voters at least as often: their silence is what an operator has to know of.
func (c *Core) nextContact() id.Node {
	var all []id.Node
	if c.contactPos%2 == 0 && len(c.voters()) > 1 {
		for _, x := range c.voters() {
			all = append(all, nodeOf(x))
		}
		return c.contactOf(all)
	}
	all = append(all, c.cfg.Contacts...)
	for n, met := range c.met {
		if met > 0 {
			all = append(all, id.Node(n))
		}
	}
	for _, n := range c.View().Nodes {
		all = append(all, n.Node)
	}
	for _, x := range raftIDs(c.rep.conf) {
		all = append(all, nodeOf(x))
	}
	return c.contactOf(all)
}

// contactOf is whose turn it is of these nodes.
func (c *Core) contactOf(all []id.Node) id.Node {
	slices.Sort(all)
	all = slices.DeleteFunc(slices.Compact(all), func(n id.Node) bool { return n == c.cfg.Self || !n.Valid() })
	c.contactPos++
	if len(all) == 0 {
		return 0
	}
	return all[c.contactPos/2%len(all)]
}

// receiveHello answers a hello.
func (c *Core) receiveHello(from id.Node, m *Message) {
	if c.lead == nil {
		c.survives(from, m.GetHello())
		// Also a node that knows no leader answers: so it is known to live.
		c.msg(from, 128).HelloReply = &corepb.HelloReply{Sent: m.GetHello().GetSent(), Incarnation: m.GetIncarnation(),
			Leader: uint32(c.leaderNode), Term: c.leaderTerm}
		return
	}
	r := c.renew(from, id.Incarnation(m.GetIncarnation()), m.GetHello())
	c.msg(from, 128).HelloReply = r
}

// renew is the leader's side of a hello: it grants the lease, and takes the node
// through whatever it needs to become a member.
func (c *Core) renew(from id.Node, inc id.Incarnation, h *corepb.Hello) *corepb.HelloReply {
	l := c.lead
	r := &corepb.HelloReply{Sent: h.GetSent(), Incarnation: uint64(inc), Leader: uint32(c.cfg.Self), Term: l.term, Leading: true}
	if !c.settled() || !c.leading() || inc == 0 {
		return r
	}
	l.heard[from] = c.now
	l.process[from] = process{h.GetOrigin(), h.GetProcess()}
	ids := raftIDs(c.rep.conf)
	r.RaftGone = h.GetRaftId() != 0 && !slices.Contains(ids, h.GetRaftId())
	c.noteLost(from, inc, h)
	r.Lost = c.lostIDs()
	if h.GetRaftId() == 0 || r.RaftGone {
		l.follow(from, inc, h.GetApplied())
	} else {
		l.unfollow(from)
	}
	n := c.rep.members.Get(from)
	switch {
	case n.State.Alive() && n.Incarnation == inc:
		if cd, ok := l.condemned[from]; !ok || cd.inc != inc {
			l.renewed[from] = c.now
			r.Granted = true
		}
	case h.GetLeaving():
	case inc <= n.Incarnation:
		r.Known = uint64(n.Incarnation)
	case n.State.Alive():
		c.decree(member.Command{Op: member.Expire, Node: from, Incarnation: n.Incarnation, Cause: "it was started anew"})
	case n.State == member.NeverUp || n.State == member.Down:
		info := &member.Info{}
		if err := json.Unmarshal(h.GetInfo(), info); err != nil || info.Check() != nil {
			c.notice("node %d cannot join: its description is not valid", from)
			break
		}
		c.decree(member.Command{Op: member.Join, Node: from, Incarnation: inc, Info: info, Cause: "joined"})
	}
	return r
}

// renewSelf is the leader's own hello: its contact with a quorum stands for the
// grant.
func (c *Core) renewSelf() {
	from, ok := c.leaseFrom()
	if ok {
		c.takeReply(c.cfg.Self, c.renew(c.cfg.Self, c.inc, c.helloBody(from)))
	}
}

// receiveHelloReply takes the answer to a hello of this node.
func (c *Core) receiveHelloReply(from id.Node, m *Message) {
	r := m.GetHelloReply()
	if r.GetLeading() {
		c.takeReply(from, r)
		return
	}
	to := id.Node(r.GetLeader())
	if to.Valid() && to != c.cfg.Self && to != from && r.GetTerm() > 0 && r.GetTerm() >= c.leaderTerm && c.lead == nil {
		if c.leaderNode == 0 { // not at once: two nodes might send this one to and fro
			c.hint = to
			c.helloAt = min(c.helloAt, max(c.now, c.helloLast+c.t.Heartbeat/4))
		}
	}
}

// receiveAnnounce takes a leader's word that it leads, and what it knows.
func (c *Core) receiveAnnounce(from id.Node, a *corepb.Announce) {
	if id.Node(a.GetLeader()) != from || c.lead != nil {
		return
	}
	if a.GetTerm() > c.leaderTerm {
		c.setLeader(from, a.GetTerm())
	}
	if from == c.leaderNode && a.GetTerm() == c.leaderTerm {
		c.takeLost(a.GetLost())
	}
}

func (c *Core) takeReply(from id.Node, r *corepb.HelloReply) {
	sent := time.Duration(r.GetSent())
	if id.Incarnation(r.GetIncarnation()) != c.inc || sent > c.now || sent < c.incSince && from != c.cfg.Self {
		return
	}
	c.setLeader(from, r.GetTerm())
	if from == c.leaderNode {
		c.takeLost(r.GetLost())
		c.missed = 0
		c.helloAt = max(c.helloAt, c.helloLast+c.t.NodeLease/4)
	}
	if r.GetRaftGone() && c.raftID != 0 && sent >= c.raftSince && from != c.cfg.Self {
		c.notice("this node is no voter any more")
		c.leaveRaft()
	}
	if known := id.Incarnation(r.GetKnown()); known >= c.inc && !c.leaving {
		c.newLife(known+1, "the cluster declared it dead")
		return
	}
	if r.GetGranted() && !c.leaving && sent >= c.incSince {
		c.serveUntil = max(c.serveUntil, sent+c.t.NodeLease)
	}
}

// tickOwn proposes what this node wants for itself.
func (c *Core) tickOwn() {
	n, alive := c.self()
	if c.ownOpen || !alive || c.leaderNode == 0 {
		return
	}
	switch {
	case !c.opened && !c.leaving:
		// A process of this life that ran before may have left a Leave on its way.
		// Once a command of this process is carried out, older ones are void.
		c.proposeOwn(opening, nil)
	case c.leaving && (c.lead == nil || c.successorGone()):
		c.proposeOwn(Membership, member.Command{Op: member.Leave, Node: n.Node, Incarnation: c.inc, Cause: c.leaveCause}.Encode())
	case !c.leaving && c.cfg.AutoUp && n.State == member.ComingUp:
		c.proposeOwn(Membership, member.Command{Op: member.MarkUp, Node: n.Node, Incarnation: c.inc, Cause: "ready"}.Encode())
	}
}

// successorGone reports that a leaving leader has nobody to hand over to.
func (c *Core) successorGone() bool {
	return c.lead != nil && !c.lead.revoked && c.successor() == 0
}

// left reports whether the cluster has let this node go: it is no living member,
// and consensus does not count on it.
func (c *Core) left() bool {
	if _, alive := c.self(); !c.leaving || alive {
		return false
	}
	return c.rn == nil && c.assigned == 0 || len(raftIDs(c.rep.conf)) == 1 && c.isVoter()
}

// serving reports whether this node may act for the cluster, until when, and
// why not.
func (c *Core) serving() (until time.Duration, reason string) {
	n, alive := c.self()
	switch {
	case c.fatal != nil:
		return 0, c.fatal.Error()
	case c.leaving:
		return 0, "this node is leaving the cluster"
	case !alive && n.State != member.NeverUp && n.Incarnation == c.inc:
		return 0, "this node was declared dead; it joins anew"
	case !alive:
		return 0, "this node has not joined the cluster yet"
	case c.cfg.faults.noFence && c.serveUntil > 0 && c.opened:
		return c.now + time.Hour, ""
	case c.serveUntil == 0 || !c.opened:
		return 0, "this node has no lease yet"
	case c.now >= c.serveUntil:
		return 0, "this node's lease ran out: it has no contact with the leader of the cluster"
	}
	return c.serveUntil, ""
}
