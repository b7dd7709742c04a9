package test

import (
	"strings"
	"testing"

	"ssi/internal/api"
)

// TestOneNode: one node alone is a cluster.
func TestOneNode(t *testing.T) {
	c := start(t, 1)
	c.do(1, "clreg", "put", "/a", "1")
	if got := c.do(1, "onnode", "1", "echo", "hello"); got != "hello\n" {
		t.Errorf("onnode 1 said %q", got)
	}
	c.ok(c.Crash(c.ctx(), 1))
	c.ok(c.StartNode(c.ctx(), 1))
	c.state(1, 1, api.Up)
	c.await(1, "serving", func(s *api.ClusterStatus) bool { return s.Serving })
	if got := c.do(1, "clreg", "get", "/a"); got != "1\n" {
		t.Errorf("after a power cut /a is %q", got)
	}
}

// TestTwoNodesCannotDecide: of two nodes one dies; the other says what to do, and
// never becomes init by itself. When the first comes back all is well.
func TestTwoNodesCannotDecide(t *testing.T) {
	c := start(t, 2)
	c.ok(c.Crash(c.ctx(), 1))
	s := c.await(2, "advice", func(s *api.ClusterStatus) bool { return !s.Serving && s.Advice != "" })
	for _, want := range []string{"cannot decide", "node 1", "ssi cluster force", "ssi cluster witness"} {
		if !strings.Contains(s.Advice, want) {
			t.Errorf("the advice lacks %q: %s", want, s.Advice)
		}
	}
	c.fails(2, 1, []string{"cannot decide", "cluster force"}, "clreg", "put", "/x", "y")
	for _, tr := range c.history(2) {
		if tr.Term != 0 && tr.Node == 2 {
			t.Errorf("node 2 took init: %+v", tr)
		}
	}
	c.ok(c.StartNode(c.ctx(), 1))
	c.await(2, "serving again", func(s *api.ClusterStatus) bool { return s.Serving && s.InitNode != 0 })
	c.do(2, "clreg", "put", "/x", "y")
}

// TestForce: the operator says that the other node is off; the survivor goes on
// alone, and the other one, when it comes back, joins again empty.
func TestForce(t *testing.T) {
	c := start(t, 2)
	c.do(1, "clreg", "put", "/kept", "yes")
	c.fails(2, 1, []string{"can decide"}, "cluster", "force", "--yes")
	c.ok(c.Crash(c.ctx(), 1))
	c.await(2, "fenced", func(s *api.ClusterStatus) bool { return !s.Serving && !s.Quorum })
	c.do(2, "cluster", "force", "--yes")
	c.await(2, "init here", func(s *api.ClusterStatus) bool { return s.Serving && s.InitNode == 2 })
	if got := c.do(2, "clreg", "get", "/kept"); got != "yes\n" {
		t.Errorf("after force /kept is %q", got)
	}
	c.do(2, "clreg", "put", "/forced", "yes")
	c.ok(c.StartNode(c.ctx(), 1))
	c.state(2, 1, api.Up)
	c.await(1, "init at node 2", func(s *api.ClusterStatus) bool { return s.Serving && s.InitNode == 2 })
	if got := c.do(1, "clreg", "get", "/forced"); got != "yes\n" {
		t.Errorf("node 1 came back and reads %q", got)
	}
	checkHistories(c, 1, 2)
}
