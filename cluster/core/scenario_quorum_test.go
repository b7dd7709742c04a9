package core

import (
	"slices"
	"strings"
	"testing"
	"time"

	"ssi/cluster/member"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// TestLostLog: a voter comes back with an empty disk. From its first hello on
// nobody takes its seat for a vote, and every node says who must not go.
func TestLostLog(t *testing.T) {
	for seed := range uint64(20) {
		for _, victim := range []id.Node{1, 3} {
			w := cluster(t, 100+seed, 3)
			waitVoters(t, w, 1, 2, 3)
			n := w.node(victim)
			n.crash()
			n.disk = nil
			runUntil(t, w, 10*time.Second, "declared dead", func() bool { return w.node(2).core.View().Get(victim).State == member.Down })
			old := w.node(2).core.rep.raftIDFor(victim)
			n.start(true)
			wrong := map[id.Node]time.Duration{} // since when a node shows a vote that is none
			shown := false
			runUntil(t, w, 20*time.Second, "voter again", func() bool {
				for _, x := range w.nodes {
					if x.core == nil || x.status.Node == 0 || x == n {
						continue
					}
					back := x.core.View().Get(victim).State.Alive()
					seat := slices.Contains(x.core.voters(), old) && len(x.core.voters()) == 3 // not on the way to the new one
					lost := slices.Equal(x.status.Lost, []id.Node{victim})
					switch {
					case !back || !seat || lost:
						delete(wrong, x.num)
					case wrong[x.num] == 0:
						wrong[x.num] = w.Now()
					case w.Now()-wrong[x.num] > 5*time.Millisecond || x.core.lead != nil:
						t.Fatalf("seed %d: node %d shows the vote of node %d, whose log is lost\n%s", seed, x.num, victim, w.states())
					}
					if lost {
						shown = true
						others := nodesText(slices.DeleteFunc([]id.Node{1, 2, 3}, func(m id.Node) bool { return m == victim }))
						if !strings.Contains(x.status.Problem, "node "+victim.String()+" lost") || !strings.Contains(x.status.Problem, others+" must not go") {
							t.Fatalf("seed %d: node %d says %q", seed, x.num, x.status.Problem)
						}
					}
				}
				seat := w.node(2).core.rep.raftIDFor(victim)
				return seat != old && slices.Contains(w.node(2).core.voters(), seat) && !slices.Contains(w.node(2).core.voters(), old)
			})
			if !shown {
				t.Errorf("seed %d: nobody showed that the log was lost", seed)
			}
			runUntil(t, w, 10*time.Second, "nothing lost any more", func() bool {
				return !slices.ContainsFunc(w.nodes, func(x *simNode) bool { return len(x.status.Lost) > 0 || x.status.Problem != "" })
			})
		}
	}
}

// votersAndClient is a cluster of the voters 1, 2, 3 and of node 4, which is none.
func votersAndClient(t *testing.T, seed uint64) *world {
	t.Helper()
	w := cluster(t, seed, 3)
	waitVoters(t, w, 1, 2, 3)
	w.addNode(4, member.Info{Name: "n4", Addr: "10.0.0.4:1985", Capable: true}).start(true)
	runUntil(t, w, 10*time.Second, "node 4 up", w.up)
	return w
}

// TestNoQuorumAtOnce: once nothing can be decided for longer than an election, who
// asks is told so at once, and whom it lacks.
func TestNoQuorumAtOnce(t *testing.T) {
	w := votersAndClient(t, 41)
	type answer struct {
		at  time.Duration
		out Outcome
	}
	ask := func(n id.Node) (write, read *answer) {
		write, read = &answer{}, &answer{}
		w.node(n).propose(App, putCommand("lonely"+n.String()+w.Now().String(), "k", "v"), time.Minute, func(o Outcome) { *write = answer{w.Now(), o} })
		w.node(n).barrier(time.Minute, func(o Outcome) { *read = answer{w.Now(), o} })
		return write, read
	}
	w.node(2).crash()
	w.node(3).crash()
	crashed := w.Now()
	w1, r1 := ask(1) // while it is not known yet
	w4, r4 := ask(4)
	runUntil(t, w, 5*time.Second, "an answer", func() bool { return w1.at > 0 && r1.at > 0 && w4.at > 0 && r4.at > 0 })
	for _, a := range []*answer{w1, r1, w4, r4} {
		if waited := a.at - crashed; a.out.Err != nil && waited < w.timing.Election {
			t.Errorf("an answer after %v, sooner than an election takes: %v", waited, a.out.Err)
		}
	}
	if !errno.Is(w1.out.Err, errno.Unknown) && !errno.Is(w1.out.Err, errno.NoQuorum) {
		t.Errorf("a write that cannot have been carried out: %v", w1.out.Err)
	}
	for _, n := range []id.Node{1, 4} {
		began := w.Now()
		wr, rd := ask(n)
		for _, a := range []*answer{wr, rd} {
			if a.at != began || !errno.Is(a.out.Err, errno.NoQuorum) || !strings.Contains(a.out.Err.Error(), "nodes 2, 3 do not answer") {
				t.Errorf("node %d, asked at %v, at %v: %v", n, began, a.at, a.out.Err)
			}
		}
	}
	w.node(2).start(true)
	runUntil(t, w, 10*time.Second, "a leader", func() bool { return w.node(1).status.Leader != 0 && w.node(1).serving() })
	mustWrite(t, w, 1, "again")
}

// TestElectionIsHidden: a change of the leader only costs its time.
func TestElectionIsHidden(t *testing.T) {
	for seed := range uint64(20) {
		w := votersAndClient(t, 300+seed)
		w.initHolder().crash()
		for _, n := range w.nodes {
			if n.core != nil {
				mustWrite(t, w, n.num, "during the election "+n.num.String())
			}
		}
	}
}
