package core

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"ssi/cluster/member"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// voters waits until the leader's configuration has these voters and no others.
func waitVoters(t *testing.T, w *world, want ...id.Node) {
	t.Helper()
	runUntil(t, w, 20*time.Second, fmt.Sprintf("voters %v", want), func() bool {
		l := w.initHolder()
		return l != nil && slices.Equal(l.status.Voters, want) && len(l.core.rep.conf.GetVotersOutgoing()) == 0
	})
}

func TestFailoverTime(t *testing.T) {
	var took []time.Duration
	for seed := uint64(1); seed <= 20; seed++ {
		w := cluster(t, seed, 3)
		waitVoters(t, w, 1, 2, 3)
		runFor(t, w, time.Duration(w.Rand().Int64N(int64(200*time.Millisecond))))
		old := w.initHolder()
		old.crash()
		start := w.Now()
		done := false
		n := w.node(old.num%3 + 1)
		n.propose(App, putCommand("x", "k", "v"), 5*time.Second, func(o Outcome) { done = o.Err == nil })
		runUntil(t, w, 5*time.Second, "written again", func() bool { return done })
		took = append(took, w.Now()-start)
		if w.Now()-start > 500*time.Millisecond && !t.Failed() {
			t.Errorf("seed %d, crashed at %v:\n%s\n%s", seed, start, w.report(), w.states())
		}
	}
	slices.Sort(took)
	t.Logf("leader crashed to next write acknowledged: median %v, longest %v of %d", took[len(took)/2], took[len(took)-1], len(took))
	if took[len(took)/2] > 450*time.Millisecond || took[len(took)-1] > 700*time.Millisecond {
		t.Errorf("failover took too long: %v", took)
	}
}

// TestShortPauses pauses random nodes for up to 300 ms, one after the other, for
// a minute: init must stay where it is.
func TestShortPauses(t *testing.T) {
	for seed := uint64(1); seed <= 3; seed++ {
		w := cluster(t, seed, 3)
		waitVoters(t, w, 1, 2, 3)
		moves, holder := w.moves, w.initHolder()
		end := w.Now() + time.Minute
		lapses := 0
		for w.Now() < end {
			n := w.nodes[w.Rand().IntN(3)]
			n.pause()
			runFor(t, w, 300*time.Millisecond)
			n.resume()
			runFor(t, w, time.Duration(w.Rand().Int64N(int64(100*time.Millisecond))))
			if !holder.holdsInit() {
				lapses++
			}
		}
		if w.moves != moves {
			t.Errorf("seed %d: init moved %d times under pauses of 300 ms", seed, w.moves-moves)
		}
		if lapses > 0 {
			t.Errorf("seed %d: the init holder was found without its lease %d times", seed, lapses)
		}
	}
}

func TestTwoNodesOneDies(t *testing.T) {
	w := cluster(t, 5, 2)
	waitVoters(t, w, 1, 2)
	w.node(2).crash()
	n := w.node(1)
	runUntil(t, w, 5*time.Second, "fenced", func() bool { return !n.serving() && !n.holdsInit() })
	var got *Outcome
	n.propose(App, putCommand("x", "k", "v"), time.Second, func(o Outcome) { got = &o })
	var read *Outcome
	n.barrier(time.Second, func(o Outcome) { read = &o })
	runUntil(t, w, 3*time.Second, "both answered", func() bool { return got != nil && read != nil })
	for _, o := range []*Outcome{got, read} {
		if !errno.Is(o.Err, errno.NoQuorum) || !strings.Contains(o.Err.Error(), "ssi cluster force") {
			t.Errorf("the survivor of two says: %v", o.Err)
		}
	}
	if p := n.status.Problem; !strings.Contains(p, "node 2") || !strings.Contains(p, "witness") {
		t.Errorf("the operator is told: %q", p)
	}
	runFor(t, w, 10*time.Second)
	if n.serving() || n.holdsInit() {
		t.Error("the survivor of two serves")
	}
	w.node(2).start(true)
	runUntil(t, w, 10*time.Second, "settled again", w.up)
	mustWrite(t, w, 1, "again")
}

func TestTwoNodesOneLosesItsLog(t *testing.T) {
	w := cluster(t, 6, 2)
	waitVoters(t, w, 1, 2)
	mustWrite(t, w, 2, "before")
	for _, n := range []id.Node{2, 1} {
		w.node(n).crash()
		w.node(n).disk = nil
		w.node(n).goodClock = true
		runFor(t, w, 2*time.Second)
		w.node(n).start(true)
		runUntil(t, w, 10*time.Second, "settled again", w.up)
		waitVoters(t, w, 1, 2)
		mustWrite(t, w, n, "after "+n.String())
	}
	w.acked["before"] = true
	if w.finish(true); w.failed() {
		t.Fatal(w.report())
	}
}

func TestWitness(t *testing.T) {
	w := newWorld(7, 2, fast(t))
	w.tracing = true
	w.addNode(3, member.Info{Name: "w", Addr: "10.0.0.3:1985", Witness: true})
	w.startAll()
	runUntil(t, w, 10*time.Second, "settled", w.up)
	waitVoters(t, w, 1, 2, 3)
	w.node(1).crash()
	runUntil(t, w, 5*time.Second, "init at node 2", w.node(2).holdsInit)
	mustWrite(t, w, 2, "a")
	w.node(1).start(true)
	runUntil(t, w, 10*time.Second, "settled", w.up)
	mustWrite(t, w, 1, "b")
	// Node 1 misses writes; only the witness and node 2 have them. Then node 2
	// dies: the witness must not become init, but bring node 1 up to date.
	w.node(1).crash()
	mustWrite(t, w, 2, "c")
	w.node(2).crash()
	runFor(t, w, 3*time.Second)
	w.node(1).start(true)
	runUntil(t, w, 10*time.Second, "init at node 1", w.node(1).holdsInit)
	if w.node(1).app.Counts["c"] != 1 {
		t.Error("node 1 became init without the last write")
	}
	mustWrite(t, w, 1, "d")
	for term, n := range w.initOf {
		if n == 3 {
			t.Errorf("the witness was init in term %d", term)
		}
	}
}

func TestVoterReplaced(t *testing.T) {
	w := cluster(t, 8, 5)
	runUntil(t, w, 10*time.Second, "three voters", func() bool { return len(w.node(1).status.Voters) == 3 })
	var victim *simNode
	for _, n := range w.nodes {
		if n.status.Voter && !n.status.Lead.Held {
			victim = n
		}
	}
	victim.crash()
	runFor(t, w, w.timing.VoterGrace/2)
	if l := w.initHolder(); !slices.Contains(l.status.Voters, victim.num) {
		t.Error("the voter was replaced before its grace had passed")
	}
	runUntil(t, w, w.timing.VoterGrace, "replaced", func() bool {
		l := w.initHolder()
		return l != nil && len(l.status.Voters) == 3 && !slices.Contains(l.status.Voters, victim.num)
	})
	victim.start(true) // with its old log
	runUntil(t, w, 10*time.Second, "settled", w.up)
	runUntil(t, w, 5*time.Second, "its log dropped", func() bool { return victim.disk == nil })
	mustWrite(t, w, victim.num, "x")
}

func TestVoterRejoinsEmpty(t *testing.T) {
	w := cluster(t, 9, 3)
	waitVoters(t, w, 1, 2, 3)
	w.snapEvery = 10
	for i := range 30 {
		mustWrite(t, w, 1, fmt.Sprint("w", i))
	}
	n := w.node(2)
	old := n.disk.raftID
	n.crash()
	n.disk = nil
	runFor(t, w, 500*time.Millisecond)
	n.start(true)
	runUntil(t, w, 10*time.Second, "settled", w.up)
	runUntil(t, w, 10*time.Second, "a voter again under a new raft ID", func() bool { return n.status.Voter && n.disk.raftID != old })
	waitVoters(t, w, 1, 2, 3)
	for i := range 30 {
		if n.app.Counts[fmt.Sprint("w", i)] != 1 {
			t.Fatalf("write %d is missing on the node that came back", i)
		}
	}
}

func TestOrderlyLeave(t *testing.T) {
	for _, leaver := range []id.Node{1, 3} { // the leader, and another
		w := cluster(t, 10, 3)
		waitVoters(t, w, 1, 2, 3)
		n := w.node(leaver)
		n.do(func() { n.core.Leave("maintenance") })
		if n.serving() {
			t.Error("a node that leaves serves on")
		}
		runUntil(t, w, 10*time.Second, "left", func() bool { return n.status.Left })
		n.stopped = true
		n.crash()
		runUntil(t, w, 10*time.Second, "settled", w.up)
		if l := w.initHolder(); len(l.status.Voters) != 2 || slices.Contains(l.status.Voters, leaver) {
			t.Errorf("voters after node %d left: %v", leaver, l.status.Voters)
		}
		var path []member.State
		for _, tr := range w.history {
			if tr.Node == leaver && !tr.Init {
				path = append(path, tr.To)
			}
		}
		want := []member.State{member.ComingUp, member.Up, member.Shutdown, member.GoingDown, member.KCleanup, member.UCleanup, member.Down}
		if !slices.Equal(path, want) {
			t.Errorf("node %d went through %v, not %v", leaver, path, want)
		}
		mustWrite(t, w, leaver%3+1, "x")
		n.stopped = false
		n.start(true) // it may come back
		runUntil(t, w, 10*time.Second, "settled", w.up)
	}
}

// TestProfiles runs a failover in every timing profile, in a network that fits it.
func TestProfiles(t *testing.T) {
	for name, delay := range map[string]time.Duration{"fast": time.Millisecond, "lan": 4 * time.Millisecond, "wan": 80 * time.Millisecond, "": time.Millisecond} {
		tm, err := TimingFor(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := tm.Check(); err != nil {
			t.Error(err)
		}
		w := newWorld(40, 3, tm)
		w.tracing = true
		w.Conditions.MinDelay, w.Conditions.MaxDelay = delay/2, delay
		w.startAll()
		runUntil(t, w, 10*tm.NodeLease, "settled", w.up)
		waitVoters(t, w, 1, 2, 3)
		w.initHolder().crash()
		runUntil(t, w, tm.Election+10*tm.Step+10*delay, "another init holder", func() bool { return w.initHolder() != nil })
		runUntil(t, w, 3*tm.LeaderLease, "the dead node declared", func() bool {
			return w.initHolder() != nil && w.initHolder().core.View().Get(1).State == member.Down
		})
		w.startAll()
		runUntil(t, w, 10*tm.NodeLease, "settled", w.up)
	}
	if _, err := TimingFor("slow"); !errno.Is(err, errno.Invalid) {
		t.Errorf("an unknown profile: %v", err)
	}
}
