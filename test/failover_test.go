package test

import (
	"fmt"
	"slices"
	"testing"

	"ssi/internal/api"
	"ssi/internal/id"
)

// TestCrashEach cuts the power of each node in turn, ten times over: the others
// go on, one of them is init, nothing that was written is lost, and the node
// comes back under its number.
func TestCrashEach(t *testing.T) {
	c := start(t, 3)
	rounds := 10
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		for n := id.Node(1); n <= 3; n++ {
			other := n%3 + 1
			key, value := fmt.Sprintf("/crash/%d/%d", round, n), fmt.Sprintf("before crash %d of node %d", round, n)
			c.do(n, "clreg", "put", key, value)
			c.ok(c.Crash(c.ctx(), n))
			c.state(other, n, api.Down)
			if got := c.do(other, "clreg", "get", key); got != value+"\n" {
				t.Fatalf("node %d reads %q after the crash of node %d, want %q", other, got, n, value)
			}
			c.do(other, "clreg", "put", key+"/after", "written without it")
			c.ok(c.StartNode(c.ctx(), n))
			c.state(other, n, api.Up)
			c.state(n, n, api.Up)
			if got := c.do(n, "clreg", "get", key+"/after"); got != "written without it\n" {
				t.Fatalf("node %d came back and reads %q", n, got)
			}
		}
	}
	checkHistories(c, 1, 2, 3)
}

// checkHistories compares the histories of nodes: each is a prefix of the
// longest, numbered without a gap, and init is taken once in each term.
func checkHistories(c *cluster, nodes ...id.Node) {
	c.t.Helper()
	var longest []api.Transition
	all := map[id.Node][]api.Transition{}
	for _, n := range nodes {
		all[n] = c.history(n)
		if len(all[n]) > len(longest) {
			longest = all[n]
		}
	}
	for n, h := range all {
		for i, tr := range h {
			if want := longest[i]; tr.Epoch != want.Epoch || tr.Node != want.Node || tr.To != want.To || tr.Term != want.Term || !tr.Time.Equal(want.Time) {
				c.t.Errorf("node %d: transition %+v, others have %+v", n, tr, want)
				break
			}
		}
	}
	var terms []uint64
	for i, tr := range longest {
		if tr.Epoch != id.Epoch(i+1) {
			c.t.Fatalf("transition %d stands at place %d", tr.Epoch, i+1)
		}
		if tr.Term != 0 {
			terms = append(terms, tr.Term)
		}
	}
	if !slices.IsSorted(terms) || len(slices.Compact(slices.Clone(terms))) != len(terms) {
		c.t.Errorf("init was taken in terms %v: each at most once, ascending", terms)
	}
}

// TestPartitions cuts each node off from the others, both ways and each way
// alone, and heals: the majority goes on, nobody else does.
func TestPartitions(t *testing.T) {
	c := start(t, 3)
	for n := id.Node(1); n <= 3; n++ {
		a, b := n%3+1, (n+1)%3+1
		for _, way := range []string{"both ways", "out", "in"} {
			for _, other := range []id.Node{a, b} {
				from, to := n, other
				if way == "in" {
					from, to = to, from
				}
				c.ok(c.Cut(c.ctx(), from, to, way != "both ways"))
			}
			c.state(a, n, api.Down)
			c.do(a, "clreg", "put", "/partition", fmt.Sprintf("%d %s", n, way))
			c.await(n, "this node fenced", func(s *api.ClusterStatus) bool { return !s.Serving })
			c.fails(n, 255, []string{"node"}, "onnode", a.String(), "true")
			c.ok(c.Heal(c.ctx(), 0, 0))
			c.state(a, n, api.Up)
			c.await(n, "serving again", func(s *api.ClusterStatus) bool { return s.Serving })
			if got, want := c.do(n, "clreg", "get", "/partition"), fmt.Sprintf("%d %s\n", n, way); got != want {
				t.Errorf("after the partition node %d reads %q, want %q", n, got, want)
			}
		}
	}
	checkHistories(c, 1, 2, 3)
}

// TestFencedFirst shows the order of events when a node loses contact: it fences
// itself before the others declare it dead. Both moments are of one clock, that
// of this machine.
func TestFencedFirst(t *testing.T) {
	c := start(t, 3)
	events := watch(c, 3)
	c.ok(c.Cut(c.ctx(), 3, 1, false))
	c.ok(c.Cut(c.ctx(), 3, 2, false))
	c.state(1, 3, api.Down)
	fenced := next(t, events, func(e api.ClusterEvent) bool { return e.Serving != nil && !e.Serving.Serving })
	for _, tr := range c.history(1) {
		if tr.Node == 3 && tr.To == api.KCleanup {
			lead := tr.Time.Sub(fenced.Serving.Time)
			t.Logf("node 3 fenced itself at %s, was declared dead at %s, %v later", fenced.Serving.Time.Format("15:04:05.000000"), tr.Time.Format("15:04:05.000000"), lead)
			if lead <= 0 {
				t.Errorf("node 3 was declared dead %v before it fenced itself", -lead)
			}
			return
		}
	}
	t.Error("node 3 was not declared dead")
}

// TestPausedNodeIsFenced freezes a node until it is declared dead: when it goes on
// it must not serve on as if nothing had happened.
func TestPausedNodeIsFenced(t *testing.T) {
	c := start(t, 3)
	before := c.history(1)
	c.ok(c.Pause(c.ctx(), 2))
	c.state(1, 2, api.Down)
	c.ok(c.Resume(c.ctx(), 2))
	c.state(1, 2, api.Up)
	c.await(2, "serving again", func(s *api.ClusterStatus) bool { return s.Serving })
	var states []api.State
	for _, tr := range c.history(1)[len(before):] {
		if tr.Node == 2 && tr.Term == 0 {
			states = append(states, tr.To)
		}
	}
	if want := []api.State{api.KCleanup, api.UCleanup, api.Down, api.ComingUp, api.Up}; !slices.Equal(states, want) {
		t.Errorf("node 2 went through %v, want %v", states, want)
	}
}
