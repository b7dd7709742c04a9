package core

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"ssi/cluster/member"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// Core is one node's part in the cluster. It is used by one goroutine.
type Core struct {
	cfg Config
	t   Timing
	rng *rand.Rand
	rep *replica

	now     time.Duration // newest time given
	wakeAt  time.Duration // when Tick is due, as Wake said last
	entry   ownEntry      // as noteSelf saw it last
	ticked  id.Epoch      // of the membership when Tick was called last
	wall    int64         // ns since 1970
	startAt time.Duration
	started bool // now is valid

	inc      id.Incarnation
	incSince time.Duration // when this incarnation began here
	recovery uint64
	void     bool // the state is of an older recovery generation: only a snapshot helps

	// raft; rn is nil without raft state
	rn        *raft.RawNode
	storage   raft.Storage
	raftID    uint64
	raftSince time.Duration // when raftID became this node's
	assigned  uint64        // raft ID given to this node, while its log is being created
	ready     *raft.Ready   // handed out, not yet advanced
	forced    *Output       // a new beginning to persist, see survives
	snapIndex uint64        // of the newest snapshot in storage
	grown     uint64        // bytes of entries applied since
	term      uint64        // newest raft term seen
	raftLead  uint64        // raft ID of raft's leader, 0 if none

	// election
	contact    time.Duration // last beat of the leader answered, or the start
	campaignAt time.Duration

	lead       *leader // not nil while this node leads
	leaderNode id.Node
	leaderTerm uint64

	// lease of this node
	helloAt    time.Duration // when to say hello next
	helloLast  time.Duration
	missed     int // hellos since the last answer of a leader
	contactPos int
	hint       id.Node                       // who leads, as another node said
	met        [id.MaxNode + 1]time.Duration // when a node sent something last: then it can be asked; 0: never
	serveUntil time.Duration
	leaderless time.Duration   // since when no leader is known
	lost       map[uint64]bool // raft IDs of the configuration whose log is lost, see lost.go

	leaving    bool
	leaveCause string
	ownOpen    bool // a command of this Core's own is open
	opened     bool // a command of this process in this life was carried out

	pending  []*proposal // by seq
	nextSeq  uint64
	barriers []*barrier
	readSeq  uint64

	xfers   map[id.Node]*xfer
	xferSeq uint64
	in      *incoming

	outs        []Outgoing
	open        map[id.Node]*openMsg
	outcomes    []Outcome
	transitions []member.Transition
	notices     []string
	said        map[string]time.Duration // when a notice was given last
	newRaft     *NewRaft
	dropRaft    bool
	restored    bool
	compact     *Compact
	fatal       error
	fatalSaid   bool
	foreign     uint64
	last        Status // as handed out last
}

// New makes a Core; app is empty, and is restored from cfg.Storage if that holds
// a snapshot.
func New(cfg Config, app Machine) (*Core, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	c := &Core{
		cfg: cfg, t: cfg.Timing, inc: cfg.Incarnation, recovery: cfg.Recovery,
		rng:   rand.New(rand.NewPCG(cfg.Seed, uint64(cfg.Self))),
		rep:   newReplica(app),
		xfers: map[id.Node]*xfer{}, open: map[id.Node]*openMsg{}, said: map[string]time.Duration{}, lost: map[uint64]bool{},
	}
	c.rep.noDedupe = cfg.faults.noDedupe
	if cfg.Storage == nil {
		return c, nil
	}
	snap, err := cfg.Storage.Snapshot()
	if err != nil {
		return nil, fmt.Errorf("read the snapshot of the log: %w", err)
	}
	if !raft.IsEmptySnap(snap) {
		if err := c.rep.restore(snap.GetMetadata(), snap.GetData()); err != nil {
			return nil, err
		}
	}
	return c, c.startRaft(cfg.RaftID, cfg.Storage)
}

// startRaft begins to take part in consensus with the state that the storage
// has; the replica stands at the storage's snapshot.
func (c *Core) startRaft(raftID uint64, st raft.Storage) (err error) {
	defer func() { // raft panics where its storage contradicts itself
		if p := recover(); p != nil {
			err = errno.New(errno.Other, "start consensus", c.cfg.Self, "the durable log is damaged: %v", p)
		}
	}()
	rn, err := raft.NewRawNode(&raft.Config{
		ID: raftID, Storage: floored{st, c.rep.index}, Applied: c.rep.index,
		HeartbeatTick: 1, ElectionTick: int((c.t.Election + c.t.Heartbeat - 1) / c.t.Heartbeat),
		MaxSizePerMsg: batchBytes, MaxCommittedSizePerReady: 4 * batchBytes,
		MaxUncommittedEntriesSize: maxUncommits, MaxInflightMsgs: 64,
		CheckQuorum: true, PreVote: true, DisableProposalForwarding: true, StepDownOnRemoval: true,
		Logger: silent{},
	})
	if err != nil {
		return err
	}
	last, err := st.LastIndex()
	if err != nil {
		return err
	}
	// The founder's log is empty until its first Output was persisted, also when
	// the node crashed before that; nobody else ever gets this raft ID.
	if last == 0 && raftID == FirstRaftID(c.cfg.Self) {
		if err := rn.Bootstrap([]raft.Peer{{ID: raftID}}); err != nil {
			return err
		}
	}
	c.rn, c.raftID, c.storage, c.raftSince = rn, raftID, st, c.now
	c.snapIndex, c.grown = c.rep.index, 0
	c.contact = c.now
	c.syncRaft()
	c.planCampaign(0)
	return nil
}

// Attach hands over the storage of the durable log that Output.NewRaft asked
// for.
func (c *Core) Attach(st raft.Storage) error {
	if c.assigned == 0 {
		return errno.New(errno.Invalid, "attach a log", c.cfg.Self, "no raft ID is waiting for one")
	}
	raftID := c.assigned
	c.assigned = 0
	return c.startRaft(raftID, st)
}

// Tick tells the time: now by the node's monotonic clock that runs on through
// sleep (CLOCK_BOOTTIME), wall by its wall clock. It is due at the time that
// Wake names, and whenever the caller wakes.
func (c *Core) Tick(now time.Duration, wall time.Time) {
	c.wall = wall.UnixNano()
	c.clock(now)
	c.ticked = c.rep.members.Epoch()
	if c.fatal != nil {
		return
	}
	if c.rn != nil {
		c.tickRaft()
	}
	if c.lead != nil {
		c.tickLeader()
	}
	c.tickHello()
	c.tickOwn()
	c.tickProposals()
	c.tickTransfers()
}

// clock takes over a newer time.
func (c *Core) clock(now time.Duration) {
	if !c.started {
		c.started = true
		c.now, c.startAt, c.incSince, c.contact, c.leaderless, c.helloAt = now, now, now, now, now, now
		// Numbers of this process must not repeat those of the one before it in
		// the same incarnation; the clock has run on since.
		base := uint64(now) + 1
		c.nextSeq, c.readSeq, c.xferSeq = base, base, base
		c.planCampaign(0)
		return
	}
	if now <= c.now {
		return
	}
	// A process that was stopped must not take its own sleep for the silence of
	// the leader, or of everyone. (Leases this node holds do count the time.)
	if late, most := now-max(c.now, c.wakeAt), 2*c.t.Heartbeat; late > most {
		c.campaignAt += late - most
		c.leaderless += late - most
	}
	c.now = now
}

// Wake is the time by which Tick is due next.
func (c *Core) Wake() time.Duration {
	w := c.helloAt
	if c.lead != nil {
		w = min(w, c.lead.nextBeat)
		if !c.lead.announced && c.settled() && c.leading() {
			w = c.now // a new leader takes init at once
		}
	} else if c.rn != nil {
		bound := c.contact + c.t.Election
		if c.isVoter() {
			w = min(w, max(c.campaignAt, bound))
			if len(c.voters()) == 1 {
				w = c.now
			}
		}
		if c.raftLead != 0 {
			w = min(w, bound)
		}
	}
	if c.serveUntil > c.now {
		w = min(w, c.serveUntil)
	}
	_, alive := c.self()
	for _, p := range c.pending {
		w = min(w, p.deadline)
		if alive && c.leaderNode != 0 {
			w = min(w, p.retryAt)
		}
	}
	for _, b := range c.barriers {
		w = min(w, b.deadline)
		if b.index == 0 && c.lead == nil && c.leaderNode != 0 {
			w = min(w, b.retryAt)
		}
	}
	if len(c.xfers) > 0 {
		w = min(w, c.now+4*c.t.Heartbeat)
	}
	if c.rep.members.Epoch() != c.ticked && c.fatal == nil {
		w = c.now // what was applied may be what the next step waited for
	}
	c.wakeAt = max(w, c.now+time.Millisecond)
	return c.wakeAt
}

// Leave begins the orderly departure of this node: it stops serving now, and
// Status.Left tells when the cluster has let it go. The caller decides how long
// it waits for that.
func (c *Core) Leave(cause string) {
	if !c.leaving {
		c.leaving, c.leaveCause, c.serveUntil = true, cause, 0
		c.helloAt = c.now
	}
}

// Cleaned tells that the remains of a dead node were cleaned up, as
// Status.Cleanup asked. It may be repeated, and does nothing on a node that does
// not lead.
func (c *Core) Cleaned(done Cleanup) {
	if c.lead != nil {
		// The history keeps why the node died on all its way to DOWN.
		c.decree(member.Command{Op: member.CleanupDone, Node: done.Node, Incarnation: done.Incarnation, To: done.To,
			Cause: c.rep.members.Get(done.Node).Cause})
	}
}

// PeerLost is a hint that the connection to a node broke. It decides nothing.
func (c *Core) PeerLost(n id.Node) {
	if c.rn != nil {
		for _, x := range raftIDs(c.rep.conf) {
			if nodeOf(x) == n && x != c.raftID {
				c.rn.ReportUnreachable(x)
			}
		}
	}
	if n == c.leaderNode {
		c.helloAt = min(c.helloAt, c.now+c.t.Heartbeat)
	}
}

// View is the membership as this node knows it.
func (c *Core) View() *member.View { return c.rep.members.View() }

// self is this node's entry; alive tells whether this very life is a member.
func (c *Core) self() (n member.Node, alive bool) {
	n = c.rep.members.Get(c.cfg.Self)
	return n, !c.void && n.Incarnation == c.inc && n.State.Alive()
}

// process is this process.
func (c *Core) process() process {
	return process{origin: uint64(c.cfg.Incarnation), start: uint64(c.startAt) + 1}
}

// fail ends all activity: going on could do harm.
func (c *Core) fail(err error) {
	if c.fatal == nil {
		c.fatal = errno.New(errno.Other, "cluster", c.cfg.Self, "this node cannot go on: %w", err)
		c.lead, c.serveUntil = nil, 0
	}
}

// notice adds a line for the log; the same line at most once a minute.
func (c *Core) notice(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if at, ok := c.said[line]; ok && c.now < at+time.Minute || len(c.notices) >= 64 {
		return
	}
	if len(c.said) >= 256 {
		clear(c.said)
	}
	c.said[line] = c.now
	c.notices = append(c.notices, line)
}

// newLife goes on under another incarnation: the one before was declared dead.
func (c *Core) newLife(inc id.Incarnation, why string) {
	c.notice("this node's life %d is over (%s); it joins anew as %d", c.inc, why, inc)
	c.inc, c.incSince, c.serveUntil, c.ownOpen, c.opened = inc, c.now, 0, false, false
	c.helloAt, c.missed = c.now, 0
	for _, p := range c.pending {
		if p.handed {
			c.outcome(p, 0, nil, errno.New(errno.Unknown, "propose", c.cfg.Self, "this node was declared dead meanwhile; the command may have been carried out before"))
		} else {
			c.outcome(p, 0, nil, errno.New(errno.Fenced, "propose", c.cfg.Self, "this node was declared dead meanwhile; nothing was done, try again"))
		}
	}
	c.pending = nil
}

// setLeader notes who leads.
func (c *Core) setLeader(n id.Node, term uint64) {
	if term < c.leaderTerm || term == c.leaderTerm && n == c.leaderNode {
		return
	}
	c.leaderNode, c.leaderTerm, c.missed = n, term, 0
	if n != c.cfg.Self {
		c.helloAt = c.now
	}
	for _, p := range c.pending {
		p.retryAt = c.now
	}
	for _, b := range c.barriers {
		b.retryAt = c.now
	}
}

// loseLeader forgets the leader until one shows up, and its term, which may have
// been a mad node's word.
func (c *Core) loseLeader() {
	if c.leaderNode != 0 {
		c.leaderNode, c.leaderTerm, c.leaderless = 0, 0, c.now
	}
}

// forcedOut gives up all state: the operator has made another node's state the
// only one.
func (c *Core) forcedOut(recovery uint64) {
	c.notice("the operator forced the cluster on without this node (recovery %d, here %d): its state is void and it joins anew", recovery, c.recovery)
	c.recovery, c.void = recovery, true
	clear(c.lost)
	c.leaveRaft()
	c.loseLeader()
	c.newLife(c.inc+1, "the cluster was forced on without it")
	for _, b := range c.barriers {
		c.outcomes = append(c.outcomes, Outcome{Req: b.req, Err: errno.New(errno.Stale, "read", c.cfg.Self, "the cluster was forced on without this node")})
	}
	c.barriers = nil
}

// leaveRaft ends this node's part in consensus; what it applied stays.
func (c *Core) leaveRaft() {
	if c.rn != nil || c.assigned != 0 {
		c.dropRaft = true
	}
	c.rn, c.storage, c.raftID, c.assigned, c.lead, c.ready, c.forced = nil, nil, 0, 0, nil, nil, nil
	c.newRaft, c.compact = nil, nil
	c.raftLead = 0
	for _, n := range c.xferNodes() {
		if c.xfers[n].raftTo != 0 {
			delete(c.xfers, n)
		}
	}
}

// voters is the voting raft IDs of the applied configuration, ascending.
func (c *Core) voters() []uint64 {
	v := slices.Concat(c.rep.conf.GetVoters(), c.rep.conf.GetVotersOutgoing())
	slices.Sort(v)
	return slices.Compact(v)
}

func (c *Core) isVoter() bool { return c.raftID != 0 && slices.Contains(c.voters(), c.raftID) }

// floored is a storage whose commit index may lag behind its snapshot: it is
// written without waiting for the disk, a snapshot is not.
type floored struct {
	raft.Storage
	index uint64 // of the snapshot
}

func (f floored) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	hs, cs, err := f.Storage.InitialState()
	if err == nil && hs.GetCommit() < f.index {
		hs = &raftpb.HardState{Term: new(hs.GetTerm()), Vote: new(hs.GetVote()), Commit: new(f.index)}
	}
	return hs, cs, err
}

// silent is raft's logger: what matters is told by Notices, and a panic of raft
// is caught where raft is called.
type silent struct{}

func (silent) Debug(...any)            {}
func (silent) Debugf(string, ...any)   {}
func (silent) Error(...any)            {}
func (silent) Errorf(string, ...any)   {}
func (silent) Info(...any)             {}
func (silent) Infof(string, ...any)    {}
func (silent) Warning(...any)          {}
func (silent) Warningf(string, ...any) {}
func (silent) Fatal(v ...any)          { panic(fmt.Sprint(v...)) }
func (silent) Fatalf(f string, v ...any) {
	panic(fmt.Sprintf(f, v...))
}
func (silent) Panic(v ...any) { panic(fmt.Sprint(v...)) }
func (silent) Panicf(f string, v ...any) {
	panic(fmt.Sprintf(f, v...))
}

var _ raft.Logger = silent{}
