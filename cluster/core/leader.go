package core

import (
	"fmt"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/quorum"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"ssi/cluster/core/corepb"
	"ssi/cluster/member"
	"ssi/internal/id"
)

// leader is what a node knows only while it leads, and forgets with its term.
type leader struct {
	term  uint64
	since time.Duration

	// rounds of the leader lease
	nextBeat time.Duration
	beats    []time.Duration // when round firstBeat+i was sent
	first    uint64          // number of beats[0]; rounds count from 1
	acked    map[uint64]uint64
	revoked  bool // the leadership was offered to another: no lease any more in this term

	handover  time.Duration // when the offer was made
	announced bool

	heard     map[id.Node]time.Duration // last hello
	renewed   map[id.Node]time.Duration // last hello of the life that is a member
	condemned map[id.Node]condemned
	asked     map[string]time.Duration
	process   map[id.Node]process // that said hello last
	feeds     []*feed             // by node
	seen      map[id.Node]*seen

	batch      []*raftpb.Entry
	batchBytes int

	votersAt time.Duration // when to look at the choice of voters again
}

// condemned is a life of a node that gets no lease any more.
type condemned struct {
	inc   id.Incarnation
	cause string
}

// seen is which proposals of a node this leader has put into its log.
type seen struct {
	inc    id.Incarnation
	lowest uint64
	seqs   map[uint64]bool
}

func newLeader(term uint64, now time.Duration) *leader {
	return &leader{
		term: term, since: now, nextBeat: now, first: 1, acked: map[uint64]uint64{},
		heard: map[id.Node]time.Duration{}, renewed: map[id.Node]time.Duration{},
		condemned: map[id.Node]condemned{}, asked: map[string]time.Duration{}, process: map[id.Node]process{},
		seen: map[id.Node]*seen{},
	}
}

// settled reports whether this leader has applied an entry of its own term, and
// with it everything that was committed before.
func (c *Core) settled() bool { return c.lead != nil && c.rep.term == c.lead.term }

// ackedBy lets raft's quorum rules count the rounds.
type ackedBy struct {
	l    *leader
	self uint64
}

func (a ackedBy) AckedIndex(voter uint64) (quorum.Index, bool) {
	if voter == a.self {
		return quorum.Index(a.l.first + uint64(len(a.l.beats)) - 1), true
	}
	n, ok := a.l.acked[voter]
	return quorum.Index(n), ok
}

// leaseFrom is when the newest round was sent that a quorum answered.
func (c *Core) leaseFrom() (time.Duration, bool) {
	l := c.lead
	if l == nil || l.revoked {
		return 0, false
	}
	in, out := quorum.MajorityConfig{}, quorum.MajorityConfig{}
	for _, x := range c.rep.conf.GetVoters() {
		in[x] = struct{}{}
	}
	for _, x := range c.rep.conf.GetVotersOutgoing() {
		out[x] = struct{}{}
	}
	if _, me := in[c.raftID]; me && len(in) == 1 && len(out) == 0 {
		return c.now, true
	}
	seq := uint64(quorum.JointConfig{in, out}.CommittedIndex(ackedBy{l, c.raftID}))
	if seq < l.first || len(l.beats) == 0 {
		return 0, false
	}
	i := min(int(seq-l.first), len(l.beats)-1)
	l.beats, l.first = l.beats[i:], l.first+uint64(i)
	return l.beats[0], true
}

// leaderLease is until when no other node can lead.
func (c *Core) leaderLease() (time.Duration, bool) {
	from, ok := c.leaseFrom()
	if !ok {
		return 0, false
	}
	hold := c.t.leaderHolds()
	if c.cfg.faults.longLeader {
		hold = 3 * c.t.Election
	}
	return from + hold, c.now < from+hold
}

// leading reports whether this node leads with its lease held.
func (c *Core) leading() bool {
	_, held := c.leaderLease()
	return held
}

func (c *Core) tickLeader() {
	l := c.lead
	if c.now >= l.nextBeat {
		l.nextBeat = c.now + c.t.Heartbeat
		c.step(c.rn.Tick)
		if c.lead != l {
			return
		}
		c.beat()
	}
	if !c.settled() || c.fatal != nil {
		return
	}
	if c.handOver(); c.lead != l {
		return
	}
	if !c.leading() {
		return
	}
	c.announce()
	c.renewSelf()
	c.expire()
	c.takeInit()
	if c.now >= l.votersAt {
		l.votersAt = c.now + c.t.Election/4
		c.chooseVoters()
	}
}

// beat begins a round.
func (c *Core) beat() {
	l := c.lead
	if len(l.beats) >= 1024 { // nobody answers; the oldest are of no use any more
		l.beats, l.first = l.beats[512:], l.first+512
	}
	l.beats = append(l.beats, c.now)
	seq := l.first + uint64(len(l.beats)) - 1
	for _, x := range raftIDs(c.rep.conf) {
		if x != c.raftID {
			m := c.raftMsg(x, 0)
			m.Beat = &corepb.Beat{Term: l.term, Seq: seq}
		}
	}
}

// receiveBeatAck counts a voter's answer.
func (c *Core) receiveBeatAck(from id.Node, m *Message) {
	l, b := c.lead, m.GetBeatAck()
	if l == nil || b.GetTerm() != l.term || m.GetRaftTo() != c.raftID || b.GetSeq() >= l.first+uint64(len(l.beats)) {
		return
	}
	// The answer comes from the raft ID that this node has now; an older one of
	// the same node has no log and answers nothing.
	x := c.rep.raftIDFor(from)
	l.acked[x] = max(l.acked[x], b.GetSeq())
}

// announce tells all members of a new leader, and again when it learns that a log
// is lost.
func (c *Core) announce() {
	l := c.lead
	if l.announced {
		return
	}
	l.announced = true
	for _, n := range c.View().Nodes {
		if n.State.Alive() && n.Node != c.cfg.Self {
			c.msg(n.Node, 0).Announce = &corepb.Announce{Term: l.term, Leader: uint32(c.cfg.Self), Lost: c.lostIDs()}
		}
	}
}

// expire declares the nodes dead that were silent for too long.
func (c *Core) expire() {
	l := c.lead
	limit := c.t.LeaderLease
	if c.cfg.faults.earlyExpire {
		limit = c.t.NodeLease / 3
	}
	for _, n := range c.View().Nodes {
		if !n.State.Alive() || n.Node == c.cfg.Self && n.Incarnation == c.inc {
			continue
		}
		if silent := c.now - max(l.renewed[n.Node], l.since); silent > limit {
			cause := fmt.Sprintf("no sign of life for %v", silent.Round(time.Millisecond))
			if cd := l.condemned[n.Node]; cd.inc == n.Incarnation && cd.cause != "" {
				cause = cd.cause
			}
			l.condemned[n.Node] = condemned{inc: n.Incarnation, cause: cause}
			c.decree(member.Command{Op: member.Expire, Node: n.Node, Incarnation: n.Incarnation, Cause: cause})
		}
	}
}

// takeInit makes this node init holder of its term.
func (c *Core) takeInit() {
	v := c.View()
	if _, alive := c.self(); alive && c.cfg.Info.Capable && !c.leaving && v.InitTerm < c.lead.term {
		c.decree(member.Command{Op: member.InitTaken, Node: c.cfg.Self, Incarnation: c.inc, Term: c.lead.term,
			Cause: fmt.Sprintf("elected in term %d", c.lead.term)})
	}
}

// handOver offers the leadership to a better voter: for a node that may not be
// init, and for one that leaves.
func (c *Core) handOver() {
	l := c.lead
	if c.cfg.Info.Capable && !c.leaving {
		return
	}
	if l.revoked {
		if c.now > l.handover+c.t.Election+c.t.Election/2 {
			c.stepDown()
		}
		return
	}
	target := c.successor()
	if target == 0 {
		return
	}
	l.revoked, l.handover = true, c.now
	c.step(func() { c.rn.TransferLeader(target) })
}

// successor is the best voter that is up to date, or 0: the oldest that may be
// init. A leader that leaves takes any other if there is none, because it must
// not remove itself from the configuration: the voters that stay might never
// learn that they decide without it.
func (c *Core) successor() uint64 {
	var best uint64
	var bestNode member.Node
	st := c.rn.Status()
	for _, x := range c.voters() {
		n := c.rep.members.Get(nodeOf(x))
		fit := n.Info.Capable && n.State.Alive()
		pr, ok := st.Progress[x]
		if x == c.raftID || !ok || !pr.RecentActive || pr.Match < st.GetCommit() || c.lost[x] || !fit && !c.leaving {
			continue
		}
		bestFit := bestNode.Info.Capable && bestNode.State.Alive()
		if best == 0 || fit && !bestFit || fit == bestFit && n.Joined < bestNode.Joined {
			best, bestNode = x, n
		}
	}
	return best
}

// stepDown ends this node's leadership: two checks of the quorum at once find
// nobody active. (raft has no other way to say so.)
func (c *Core) stepDown() {
	for range 2 {
		c.step(func() {
			_ = c.rn.Step(&raftpb.Message{Type: raftpb.MsgCheckQuorum.Enum(), From: new(raft.LocalAppendThread)})
		})
	}
}

// decree proposes a command in the leader's own name. Such commands may be
// carried out twice without harm, and are repeated until they have an effect.
func (c *Core) decree(cmd member.Command) {
	l := c.lead
	key := fmt.Sprint(cmd.Op, cmd.Node, cmd.Incarnation, cmd.To)
	if at, ok := l.asked[key]; ok && c.now < at+c.t.Election {
		return
	}
	if len(l.asked) > 4096 {
		clear(l.asked)
	}
	l.asked[key] = c.now
	c.enqueue(&corepb.Envelope{Wall: c.wall, Kind: uint32(Membership), Data: cmd.Encode()})
}

// enqueue adds a log entry to the batch that goes into the log next.
func (c *Core) enqueue(env *corepb.Envelope) {
	data, err := proto.Marshal(env)
	if err != nil {
		c.fail(err)
		return
	}
	c.lead.batch = append(c.lead.batch, &raftpb.Entry{Data: data})
	c.lead.batchBytes += len(data)
}

// accept takes proposals of a node into the log.
func (c *Core) accept(from id.Node, inc id.Incarnation, ps []*corepb.Proposal) {
	l := c.lead
	s := l.seen[from]
	if s == nil || s.inc < inc {
		s = &seen{inc: inc, seqs: map[uint64]bool{}}
		l.seen[from] = s
	}
	if s.inc != inc {
		return
	}
	for _, p := range ps {
		if len(p.GetData()) > MaxCommand || l.batchBytes > maxUncommits || p.GetSeq() >= p.GetLowest()+MaxPending ||
			Kind(p.GetKind()) != Membership && Kind(p.GetKind()) != App && Kind(p.GetKind()) != opening {
			continue
		}
		if p.GetLowest() > s.lowest {
			s.lowest = p.GetLowest()
			for q := range s.seqs {
				if q < s.lowest {
					delete(s.seqs, q)
				}
			}
		}
		if p.GetSeq() < s.lowest || s.seqs[p.GetSeq()] && !c.cfg.faults.noDedupe {
			continue
		}
		if Kind(p.GetKind()) == Membership && !c.mayKick(p.GetData()) {
			continue // the proposer asks again
		}
		s.seqs[p.GetSeq()] = true
		c.enqueue(&corepb.Envelope{Node: uint32(from), Incarnation: uint64(inc), Seq: p.GetSeq(), Lowest: p.GetLowest(),
			Wall: c.wall, Kind: p.GetKind(), Data: p.GetData()})
	}
}

// mayKick holds back an operator's order to declare a living node dead until the
// node is sure to have fenced itself; from now on it gets no lease.
func (c *Core) mayKick(data []byte) bool {
	cmd, err := member.DecodeCommand(data)
	if err != nil || cmd.Op != member.SetState || cmd.To != member.KCleanup {
		return true
	}
	n := c.rep.members.Get(cmd.Node)
	if !n.State.Alive() || n.Incarnation != cmd.Incarnation {
		return true // over already; the command changes nothing
	}
	if n.Node == c.cfg.Self { // the leader itself would have to leave
		return false
	}
	cause := cmd.Cause
	if cause == "" {
		cause = "set by the operator"
	}
	if c.lead.condemned[n.Node].inc != n.Incarnation { // what was said of an earlier life does not count
		c.lead.condemned[n.Node] = condemned{inc: n.Incarnation, cause: cause}
	}
	return false // expire does it when the lease has run out
}

// flushBatch puts the batch into the log.
func (c *Core) flushBatch() {
	l := c.lead
	if len(l.batch) == 0 {
		return
	}
	batch := l.batch
	l.batch, l.batchBytes = nil, 0
	var err error
	c.step(func() {
		err = c.rn.Step(&raftpb.Message{Type: raftpb.MsgProp.Enum(), From: new(c.raftID), Entries: batch})
	})
	if err != nil && c.lead == l { // refused as a whole: proposers ask again
		clear(l.seen)
		clear(l.asked)
	}
}
