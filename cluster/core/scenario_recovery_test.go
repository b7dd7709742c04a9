package core

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3"

	"ssi/cluster/member"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// force does what `ssi cluster force` does to a stopped node.
func (n *simNode) force(t *testing.T) {
	t.Helper()
	f, err := Force(n.num, n.disk.raftID, n.disk.recovery, n.disk.storage, newKV())
	if err != nil {
		t.Fatal(err)
	}
	st := raft.NewMemoryStorage()
	if err := st.ApplySnapshot(f.Snapshot); err != nil {
		t.Fatal(err)
	}
	if err := st.SetHardState(f.HardState); err != nil {
		t.Fatal(err)
	}
	n.disk = &disk{raftID: f.RaftID, recovery: f.Recovery, storage: st, synced: f.HardState}
}

func TestForce(t *testing.T) {
	for _, nodes := range []int{2, 3, 5} {
		w := cluster(t, 11, nodes)
		runUntil(t, w, 10*time.Second, "voters", func() bool { return len(w.node(1).status.Voters) == target(nodes, 7) })
		mustWrite(t, w, 1, "before")
		n := w.node(1)
		for _, x := range w.nodes {
			x.crash()
		}
		runFor(t, w, time.Second)
		old := n.disk.recovery
		n.force(t)
		if n.disk.recovery <= old {
			t.Fatal("the recovery generation was not raised")
		}
		n.start(true)
		runUntil(t, w, 10*time.Second, "init at node 1", n.holdsInit)
		mustWrite(t, w, 1, "alone")
		// The others come back one by one, with their old logs: they are told, and
		// join anew.
		for _, x := range w.nodes[1:] {
			x.start(true)
			runUntil(t, w, 10*time.Second, "joined anew", func() bool { return x.serving() && x.status.State == member.Up })
			if x.app.Counts["before"] != 1 || x.app.Counts["alone"] != 1 {
				t.Errorf("node %d has not the forced state: %v", x.num, x.app.Counts)
			}
			mustWrite(t, w, x.num, "again "+x.num.String())
		}
		runUntil(t, w, 20*time.Second, "settled", w.up)
		runUntil(t, w, 20*time.Second, "voters again", func() bool { return len(w.initHolder().status.Voters) == target(nodes, 7) })
	}
}

// TestForcedOutLeader lets the node that was left out lead on: it stops as soon as
// it hears of the newer generation.
func TestForcedOutLeader(t *testing.T) {
	w := cluster(t, 12, 3)
	waitVoters(t, w, 1, 2, 3)
	for _, b := range []int{1, 2} {
		w.Cut(b, 3)
		w.Cut(3, b)
	}
	n := w.node(3)
	n.crash()
	n.force(t)
	// The operator was wrong: nodes 1 and 2 live. There are two clusters until
	// they meet, so the one rule that cannot hold is not checked here.
	w.checker = newChecker(w)
	w.lenient = true
	n.start(true)
	w.Run(w.Now()+3*time.Second, func() bool { return false })
	if !n.holdsInit() || !w.node(1).holdsInit() {
		t.Fatalf("both sides were to go on:\n%s", w.states())
	}
	w.Heal()
	for _, x := range w.nodes {
		x.do(func() { x.core.PeerLost(x.core.leaderNode) })
	}
	ok := w.Run(w.Now()+20*time.Second, w.up)
	if !ok || !n.holdsInit() {
		t.Fatalf("the forced side did not win:\n%s\n%s", w.states(), w.report())
	}
}

// TestWholeClusterRestart cuts the power of all nodes, with some of the writes
// acknowledged a moment before.
func TestWholeClusterRestart(t *testing.T) {
	for seed := uint64(20); seed < 26; seed++ {
		w := cluster(t, seed, 1+int(seed%5))
		w.snapEvery = 20
		for round := range 3 {
			for i := range 10 {
				n := w.nodes[i%len(w.nodes)].num
				mustWrite(t, w, n, fmt.Sprintf("r%d-%d", round, i))
				w.acked[fmt.Sprintf("r%d-%d", round, i)] = true
			}
			for _, n := range w.nodes {
				n.crash()
			}
			runFor(t, w, time.Second)
			w.startAll()
			runUntil(t, w, 20*time.Second, "settled", w.up)
		}
		if w.finish(false); w.failed() {
			t.Fatal(w.report())
		}
	}
}

// TestBigSnapshot lets a node catch up by a snapshot that needs many messages,
// over a link that loses some.
func TestBigSnapshot(t *testing.T) {
	w := cluster(t, 30, 2)
	w.wire = true
	waitVoters(t, w, 1, 2)
	big := strings.Repeat("x", 300<<10)
	for i := range 4 {
		var done bool
		w.node(1).propose(App, putCommand(fmt.Sprint("big", i), fmt.Sprint("k", i), big), 5*time.Second, func(o Outcome) { done = o.Err == nil })
		runUntil(t, w, 5*time.Second, "written", func() bool { return done })
	}
	l := w.initHolder()
	l.do(func() { l.core.takeCompact(); l.core.compact.Keep = l.core.rep.index + 1 })
	w.Conditions.Loss = 0.05
	for i := range 2 {
		num := id.Node(3 + i)
		n := w.addNode(num, member.Info{Name: fmt.Sprint("n", num), Addr: "10.0.0.9:1985"})
		n.start(true)
		runUntil(t, w, 60*time.Second, "the new node caught up", func() bool { return n.app.Counts["big3"] == 1 && n.serving() })
	}
}

func TestCommandLimits(t *testing.T) {
	w := cluster(t, 31, 1)
	n := w.node(1)
	var errs []error
	n.propose(App, make([]byte, MaxCommand+1), time.Second, func(o Outcome) { errs = append(errs, o.Err) })
	if len(errs) != 1 || !errno.Is(errs[0], errno.Full) {
		t.Errorf("a command over the limit: %v", errs)
	}
	w2 := cluster(t, 32, 2)
	waitVoters(t, w2, 1, 2)
	w2.node(2).crash()
	n = w2.node(1)
	full, other := 0, 0
	for i := range MaxPending + 50 {
		n.propose(App, putCommand(fmt.Sprint("p", i), "k", "v"), 2*time.Second, func(o Outcome) {
			if errno.Is(o.Err, errno.Full) {
				full++
			} else {
				other++
			}
		})
	}
	runUntil(t, w2, 5*time.Second, "all answered", func() bool { return full+other == MaxPending+50 })
	if full < 40 || full > 60 {
		t.Errorf("%d of %d proposals refused as too many", full, MaxPending+50)
	}
	w2.node(2).start(true)
	runUntil(t, w2, 10*time.Second, "settled", w2.up)
	mustWrite(t, w2, 1, "after")
}

func TestForeignCluster(t *testing.T) {
	w := cluster(t, 33, 1)
	n := w.node(1)
	for range 100 {
		n.do(func() {
			n.core.Receive(n.local(), 2, &Message{Version: version, Cluster: "other", Recovery: n.core.recovery, Forced: true})
			n.core.Receive(n.local(), 2, &Message{Version: version, Cluster: "other", Recovery: 1 << 60})
		})
	}
	runFor(t, w, 100*time.Millisecond)
	said := 0
	for _, l := range w.traceLines {
		said += strings.Count(l, "another cluster")
	}
	if said != 1 || n.status.Foreign != 200 || !n.serving() {
		t.Errorf("warned %d times, counted %d, serving %v", said, n.status.Foreign, n.serving())
	}
}

// TestKick lets an operator declare a living node dead: it is fenced first, and
// comes back by itself in a new life.
func TestKick(t *testing.T) {
	w := cluster(t, 34, 3)
	waitVoters(t, w, 1, 2, 3)
	inc := w.node(3).status.Incarnation
	var got *Outcome
	cmd := member.Command{Op: member.SetState, Node: 3, To: member.KCleanup, Cause: "stuck"}
	w.node(2).propose(Membership, cmd.Encode(), 5*time.Second, func(o Outcome) { got = &o })
	runUntil(t, w, 6*time.Second, "an outcome", func() bool { return got != nil })
	if got.Err != nil || !w.declared[[2]uint64{3, uint64(inc)}] {
		t.Errorf("outcome %v, declared %v", got.Err, w.declared)
	}
	runUntil(t, w, 5*time.Second, "settled", w.up)
	if w.node(3).status.Incarnation <= inc {
		t.Error("the node did not begin a new life")
	}
}
