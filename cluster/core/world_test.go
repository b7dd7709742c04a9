package core

import (
	"fmt"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"ssi/cluster/member"
	"ssi/internal/id"
	"ssi/internal/simnet"
)

// disk is what survives a crash of a node.
type disk struct {
	raftID   uint64
	recovery uint64
	storage  *raft.MemoryStorage
	synced   *raftpb.HardState // what a power cut leaves of the hard state
}

// simNode is a node of a world: its process, when it runs, and what surrounds it.
type simNode struct {
	w       *world
	num     id.Node
	clock   simnet.Clock
	info    member.Info
	disk    *disk // nil: no durable log
	boot    bool  // founds the cluster
	inc     id.Incarnation
	life    int   // of the process; events of earlier ones are void
	core    *Core // nil while the process does not run
	app     *kv
	status  Status
	paused  bool
	inbox   []func()
	wake    int // number of the newest wake-up asked for
	wakeAt  time.Duration
	stopped bool // left for good
	ticks   int

	goodClock bool // its clock is not set back
	nextReq   uint64
	reqs      map[uint64]func(Outcome)
}

// world is a simulated cluster, the invariants it must keep, and what happened.
type world struct {
	*simnet.Sim
	*checker
	nodes      []*simNode
	timing     Timing
	faults     faults
	maxVoters  int
	wire       bool // encode and decode every message
	crashRate  float64
	snapEvery  uint64
	cleanDelay time.Duration // longest a cleanup takes
	tracing    bool
	traceLines []string
	contacts   []id.Node
}

func newWorld(seed uint64, nodes int, timing Timing) *world {
	w := &world{Sim: simnet.New(seed), timing: timing, snapEvery: 10_000, cleanDelay: 20 * time.Millisecond, contacts: []id.Node{1, 2, 3}}
	w.checker = newChecker(w)
	w.Conditions = simnet.Conditions{MinDelay: 100 * time.Microsecond, MaxDelay: time.Millisecond}
	for i := range nodes {
		n := w.addNode(id.Node(i+1), member.Info{Name: fmt.Sprintf("n%d", i+1), Addr: fmt.Sprintf("10.0.0.%d:1985", i+1), Capable: true})
		n.boot = i == 0
	}
	return w
}

func (w *world) addNode(num id.Node, info member.Info) *simNode {
	n := &simNode{
		w: w, num: num, info: info,
		clock: simnet.Clock{
			Offset: time.Duration(w.Rand().Int64N(int64(100 * time.Second))),
			Rate:   1 + (w.Rand().Float64()-0.5)*0.02,
		},
	}
	w.nodes = append(w.nodes, n)
	return n
}

func (w *world) trace(format string, args ...any) {
	if w.tracing {
		w.traceLines = append(w.traceLines, fmt.Sprintf("%10.4fs ", w.Now().Seconds())+fmt.Sprintf(format, args...))
		if len(w.traceLines) > 4000 {
			w.traceLines = append([]string(nil), w.traceLines[2000:]...)
		}
	}
}

func (w *world) node(n id.Node) *simNode {
	for _, x := range w.nodes {
		if x.num == n {
			return x
		}
	}
	return nil
}

// startAll starts every node that does not run, within a short time.
func (w *world) startAll() {
	for i, n := range w.nodes {
		w.After(time.Duration(i)*time.Millisecond, func() {
			if n.core == nil && !n.stopped {
				n.start(true)
			}
		})
	}
}

// up reports that all running nodes are settled: UP and serving in one view, with
// one init holder.
func (w *world) up() bool {
	var epoch id.Epoch
	inits := 0
	for _, n := range w.nodes {
		if n.stopped {
			continue
		}
		if n.core == nil || n.paused || !n.serving() || n.status.State != member.Up {
			return false
		}
		e := n.core.View().Epoch
		if epoch != 0 && e != epoch {
			return false
		}
		epoch = e
		if n.holdsInit() {
			inits++
		}
	}
	return inits == 1
}

func (n *simNode) local() time.Duration { return n.clock.At(n.w.Now()) }

func (n *simNode) serving() bool {
	return n.core != nil && n.status.Serving && n.local() < n.status.ServingUntil
}

func (n *simNode) holdsInit() bool { return n.core != nil && n.status.Init.At(n.local()) }

// start begins a process of the node, in a new life or (a restart of the daemon
// alone) in the same.
func (n *simNode) start(newLife bool) {
	n.life++
	if newLife {
		n.inc = id.Incarnation(1000 * (n.life + 10))
		if n.w.Rand().IntN(10) == 0 && !n.goodClock { // its clock was set back
			n.inc = id.Incarnation(500 + n.life)
		}
		if n.disk != nil && n.w.Rand().IntN(2) == 0 { // the power was cut
			_ = n.disk.storage.SetHardState(n.disk.synced)
		}
	}
	n.wakeAt = 0
	n.paused, n.inbox, n.reqs = false, nil, map[uint64]func(Outcome){}
	n.app = newKV()
	n.app.onApply = n.w.applied(n)
	cfg := Config{
		Cluster: "test", Self: n.num, Incarnation: n.inc, Info: n.info, Timing: n.w.timing, Seed: n.w.Rand().Uint64(),
		Contacts: n.w.contacts, MaxVoters: n.w.maxVoters, AutoUp: true, SnapshotEntries: n.w.snapEvery, faults: n.w.faults,
	}
	if n.disk == nil && n.boot {
		n.disk = &disk{raftID: FirstRaftID(n.num), recovery: NextRecovery(0, n.num), storage: raft.NewMemoryStorage()}
		n.boot = false
		cfg.Bootstrap = true
	}
	if n.disk != nil {
		cfg.RaftID, cfg.Recovery, cfg.Storage = n.disk.raftID, n.disk.recovery, n.disk.storage
	}
	c, err := New(cfg, n.app)
	if err != nil {
		n.w.violate("node %d does not start: %v", n.num, err)
		return
	}
	n.core, n.status = c, Status{}
	n.w.trace("n%d starts, incarnation %d, raft ID %x, state at %d", n.num, n.inc, cfg.RaftID, c.rep.index)
	n.tick()
}

// crash ends the process; what was not persisted is gone.
func (n *simNode) crash() {
	n.w.trace("n%d crashes", n.num)
	n.core, n.status, n.inbox = nil, Status{}, nil
	n.life++
	n.w.crashed(n)
}

// do runs f in the process, later if it is paused.
func (n *simNode) do(f func()) {
	switch {
	case n.core == nil:
	case n.paused:
		if len(n.inbox) < 10_000 {
			n.inbox = append(n.inbox, f)
		}
	default:
		f()
		n.carryOut()
	}
}

func (n *simNode) pause() { n.paused = n.core != nil }

func (n *simNode) resume() {
	if !n.paused {
		return
	}
	n.paused = false
	in := n.inbox
	n.inbox = nil
	n.tick()
	for _, f := range in {
		n.do(f)
	}
}

func (n *simNode) tick() {
	n.ticks++
	n.do(func() { n.core.Tick(n.local(), time.Unix(1e9, 0).Add(n.w.Now())) })
}

// carryOut does what the core wants, in the order it says.
func (n *simNode) carryOut() {
	life := n.life
	for n.core != nil {
		out := n.core.Ready()
		if out == nil {
			break
		}
		if out.Fatal != nil {
			n.w.violate("node %d cannot go on: %v", n.num, out.Fatal)
			n.crash()
			return
		}
		if n.w.crashRate > 0 && n.w.Rand().Float64() < n.w.crashRate {
			n.w.crashAndRestart(n)
			return
		}
		n.persist(out)
		n.status = out.Status
		n.w.check()
		if n.w.crashRate > 0 && n.w.Rand().Float64() < n.w.crashRate {
			n.w.crashAndRestart(n)
			return
		}
		for _, o := range out.Messages {
			n.send(o)
		}
		n.w.transitions(n, out)
		for _, s := range out.Notices {
			n.w.trace("n%d: %s", n.num, s)
		}
		for _, o := range out.Outcomes {
			f := n.reqs[o.Req]
			if f == nil {
				n.w.violate("node %d: second or unasked outcome for request %d", n.num, o.Req)
				continue
			}
			delete(n.reqs, o.Req)
			f(o)
		}
		for _, cl := range out.Status.Cleanup {
			n.w.After(time.Duration(n.w.Rand().Int64N(int64(n.w.cleanDelay)+1)), func() {
				if n.life == life {
					n.do(func() { n.core.Cleaned(cl) })
				}
			})
		}
		n.core.Advance()
		if out.NewRaft != nil {
			if err := n.core.Attach(n.disk.storage); err != nil {
				n.w.violate("node %d: attach: %v", n.num, err)
			}
		}
	}
	if n.core != nil {
		n.plan()
	}
}

func (n *simNode) persist(out *Output) {
	must := func(err error) {
		if err != nil {
			n.w.violate("node %d: persist: %v", n.num, err)
		}
	}
	if out.DropRaft {
		n.w.trace("n%d drops its log", n.num)
		n.disk = nil
	}
	if r := out.NewRaft; r != nil {
		n.w.trace("n%d gets raft ID %x, state at %d", n.num, r.RaftID, r.Snapshot.GetMetadata().GetIndex())
		n.disk = &disk{raftID: r.RaftID, recovery: r.Recovery, storage: raft.NewMemoryStorage()}
		must(n.disk.storage.ApplySnapshot(r.Snapshot))
	}
	if n.disk == nil {
		return
	}
	st := n.disk.storage
	if out.Snapshot != nil {
		must(st.ApplySnapshot(out.Snapshot))
	}
	must(st.Append(out.Entries))
	if out.HardState != nil {
		must(st.SetHardState(out.HardState))
	}
	if out.MustSync {
		n.disk.synced, _, _ = st.InitialState()
	}
	if cp := out.Compact; cp != nil {
		_, err := st.CreateSnapshot(cp.Index, cp.ConfState, cp.Data)
		must(err)
		if first, _ := st.FirstIndex(); cp.Keep > first {
			must(st.Compact(cp.Keep - 1))
		}
	}
}

func (n *simNode) send(o Outgoing) {
	to := n.w.node(o.To)
	if to == nil {
		return
	}
	m := o.Msg
	if n.w.wire {
		b, err := Encode(m)
		if err == nil {
			m, err = Decode(b)
		}
		if err != nil || len(b) > MaxMessage {
			n.w.violate("node %d sends a bad message of %d bytes: %v", n.num, len(b), err)
			return
		}
	}
	n.w.Send(int(n.num), int(o.To), func() {
		to.do(func() { to.core.Receive(to.local(), n.num, m) })
	})
}

// plan makes sure that the core is called at the time it asks for.
func (n *simNode) plan() {
	at := n.clock.When(n.core.Wake())
	if n.wakeAt > n.w.Now() && at >= n.wakeAt {
		return
	}
	n.wakeAt = at
	n.wake++
	wake, life := n.wake, n.life
	n.w.At(at+time.Duration(n.w.Rand().Int64N(int64(500*time.Microsecond))), func() {
		if n.wake != wake || n.life != life {
			return
		}
		n.wakeAt = 0
		if n.paused { // its timer fires when it runs again
			return
		}
		n.tick()
	})
}

// propose and barrier call f with the outcome, unless the node crashes before.
func (n *simNode) propose(kind Kind, cmd []byte, timeout time.Duration, f func(Outcome)) {
	n.do(func() {
		n.nextReq++
		n.reqs[n.nextReq] = f
		n.core.Propose(n.nextReq, n.local()+timeout, kind, cmd)
	})
}

func (n *simNode) barrier(timeout time.Duration, f func(Outcome)) {
	n.do(func() {
		n.nextReq++
		n.reqs[n.nextReq] = f
		n.core.Barrier(n.nextReq, n.local()+timeout)
	})
}

// crashAndRestart crashes a node in the middle of an Output.
func (w *world) crashAndRestart(n *simNode) {
	n.crash()
	w.After(time.Duration(w.Rand().Int64N(int64(time.Second))), func() {
		if n.core == nil && !n.stopped {
			n.start(true)
		}
	})
}
