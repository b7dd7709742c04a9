package core

import (
	"testing"
	"time"

	"ssi/cluster/member"
	"ssi/internal/id"
	"ssi/internal/simnet"
)

func fast(t testing.TB) Timing {
	t.Helper()
	tm, err := TimingFor("fast")
	if err != nil {
		t.Fatal(err)
	}
	return tm
}

// runUntil lets the world go on until cond holds, for at most limit.
func runUntil(t *testing.T, w *world, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	ok := w.Run(w.Now()+limit, func() bool { w.check(); return w.failed() || cond() })
	if w.failed() {
		t.Fatalf("rule broken:\n%s", w.report())
	}
	if !ok && !cond() {
		t.Fatalf("within %v: not %s\n%s\n%s", limit, what, w.states(), w.report())
	}
}

func runFor(t *testing.T, w *world, d time.Duration) {
	t.Helper()
	w.Run(w.Now()+d, func() bool { w.check(); return w.failed() })
	if w.failed() {
		t.Fatalf("rule broken:\n%s", w.report())
	}
}

// cluster starts n nodes and waits until they are settled.
func cluster(t *testing.T, seed uint64, n int) *world {
	t.Helper()
	w := newWorld(seed, n, fast(t))
	w.tracing = true
	w.startAll()
	runUntil(t, w, 10*time.Second, "settled", w.up)
	return w
}

// mustWrite writes through a node and waits for the acknowledgement.
func mustWrite(t *testing.T, w *world, n id.Node, name string) {
	t.Helper()
	var got *Outcome
	w.node(n).propose(App, putCommand(name, "k", name), 5*time.Second, func(o Outcome) { got = &o })
	runUntil(t, w, 6*time.Second, "an outcome of the write", func() bool { return got != nil })
	if got.Err != nil {
		t.Fatalf("write through node %d: %v\n%s", n, got.Err, w.states())
	}
}

func (w *world) initHolder() *simNode {
	for _, n := range w.nodes {
		if n.holdsInit() {
			return n
		}
	}
	return nil
}

func TestOneNode(t *testing.T) {
	w := cluster(t, 1, 1)
	mustWrite(t, w, 1, "a")
	if w.Now() > 500*time.Millisecond {
		t.Errorf("one node alone took %v to serve", w.Now())
	}
}

// TestOneNodeAtOnce: a node that is alone waits for no heartbeat and no other time,
// neither as founder nor when its machine starts anew.
func TestOneNodeAtOnce(t *testing.T) {
	tm, err := TimingFor("lan")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(3, 1, tm)
	w.tracing, w.cleanDelay = true, time.Millisecond
	w.startAll()
	runUntil(t, w, 50*time.Millisecond, "the founder serves", w.up)
	w.node(1).crash()
	runFor(t, w, time.Second)
	w.startAll()
	runUntil(t, w, 50*time.Millisecond, "the node serves again", w.up)
}

// TestJoinAtOnce: a node that starts, for the first time or anew, says hello again as
// soon as it hears that the cluster has taken the next step with it.
func TestJoinAtOnce(t *testing.T) {
	tm, err := TimingFor("lan")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(4, 2, tm)
	w.tracing, w.cleanDelay, w.maxVoters = true, time.Millisecond, 1
	w.Conditions = simnet.Conditions{MinDelay: time.Millisecond, MaxDelay: time.Millisecond} // in order, as over TCP
	w.node(1).start(true)
	runUntil(t, w, time.Second, "the founder serves", w.node(1).serving)
	const soon = 100 * time.Millisecond
	n := w.node(2)
	for _, what := range []string{"first", "while the cluster thinks it lives", "once it is down"} {
		n.start(true)
		runUntil(t, w, soon, what+": it serves", n.serving)
		n.crash()
		if what == "while the cluster thinks it lives" {
			runUntil(t, w, 3*tm.LeaderLease, "it is declared down", func() bool { return w.node(1).core.View().Get(2).State == member.Down })
		}
	}
}

func TestThreeNodes(t *testing.T) {
	w := cluster(t, 1, 3)
	t.Logf("three nodes settled after %v", w.Now())
	for n := id.Node(1); n <= 3; n++ {
		mustWrite(t, w, n, "w"+n.String())
	}
	runUntil(t, w, 5*time.Second, "three voters", func() bool { return len(w.node(1).status.Voters) == 3 })
	runFor(t, w, 5*time.Second)
}

// TestNoBusyLoop counts how often cores want to be called when nothing happens,
// and when nothing can happen.
func TestNoBusyLoop(t *testing.T) {
	w := cluster(t, 2, 5)
	count := func(what string, limit int) {
		t.Helper()
		for _, n := range w.nodes {
			n.ticks = 0
		}
		runFor(t, w, 10*time.Second)
		for _, n := range w.nodes {
			if n.ticks > 10*limit {
				t.Errorf("%s: node %d is called %d times a second", what, n.num, n.ticks/10)
			}
		}
	}
	count("idle", 45)
	for _, n := range w.nodes {
		for _, m := range w.nodes {
			w.Cut(int(n.num), int(m.num))
		}
		n.propose(App, putCommand("p"+n.num.String(), "k", "v"), time.Minute, func(Outcome) {})
		n.barrier(time.Minute, func(Outcome) {})
	}
	count("everyone alone", 45)
}
