package test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"ssi/internal/api"
	"ssi/internal/id"
)

// everywhere does something with each node at the same time.
func everywhere(nodes []id.Node, do func(id.Node)) {
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() { do(n) })
	}
	wg.Wait()
}

func first(n int) (nodes []id.Node) {
	for i := range n {
		nodes = append(nodes, id.Node(i+1))
	}
	return nodes
}

// whole waits until all of these nodes serve and see each other UP, with one
// init.
func (c *cluster) whole(nodes []id.Node) {
	c.t.Helper()
	for _, n := range nodes {
		c.await(n, fmt.Sprintf("nodes %v UP and serving", nodes), func(s *api.ClusterStatus) bool {
			for _, other := range nodes {
				if info, _ := s.Find(other); info.State != api.Up {
					return false
				}
			}
			return s.Serving && s.InitNode != 0
		})
	}
}

// TestSitePowerCut cuts the power of all nodes at once and restores it: the
// cluster comes back by itself with all it had acknowledged.
func TestSitePowerCut(t *testing.T) {
	c := start(t, 5)
	nodes := first(5)
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	for round := range rounds {
		for _, n := range nodes {
			c.do(n, "clreg", "put", fmt.Sprintf("/site/%d/%s", round, n), fmt.Sprintf("round %d", round))
		}
		everywhere(nodes, func(n id.Node) {
			if err := c.Crash(c.ctx(), n); err != nil {
				t.Error(err)
			}
		})
		everywhere(nodes, func(n id.Node) {
			if err := c.StartNode(c.ctx(), n); err != nil {
				t.Error(err)
			}
		})
		c.whole(nodes)
		for _, n := range nodes {
			for past := range round + 1 {
				for _, by := range nodes {
					if got, want := c.do(n, "clreg", "get", fmt.Sprintf("/site/%d/%s", past, by)), fmt.Sprintf("round %d\n", past); got != want {
						t.Fatalf("after the power cut node %d reads %q, want %q", n, got, want)
					}
				}
			}
		}
		if got := c.do(1, "onall", "--no-prefix", "clusternode_num"); strings.Count(got, "\n") != 5 {
			t.Errorf("onall after the power cut: %q", got)
		}
	}
	checkHistories(c, nodes...)
}

// TestKillAllNodeRoles kills the daemons of all nodes at once, as a bug would
// that all of them meet: they come back, nothing is lost, and nobody was declared
// dead who did not miss a lease.
func TestKillAllNodeRoles(t *testing.T) {
	c := start(t, 3, profile("lan"))
	nodes := first(3)
	for round := range 3 {
		c.do(1, "clreg", "put", "/all", fmt.Sprint(round))
		everywhere(nodes, func(n id.Node) { c.do(n, "pkill", "-9", "-xf", "ssi node") })
		c.whole(nodes)
		for _, n := range nodes {
			if got := c.do(n, "clreg", "get", "/all"); got != fmt.Sprintf("%d\n", round) {
				t.Errorf("round %d: node %d reads %q", round, n, got)
			}
			c.do(n, "onnode", (n%3 + 1).String(), "true")
		}
	}
	checkHistories(c, nodes...)
}

// TestVoterReplaced: of five nodes three vote; one of the three that stays away
// is replaced, and is no voter when it comes back.
func TestVoterReplaced(t *testing.T) {
	c := start(t, 5)
	var away, watcher id.Node
	s := c.await(1, "three voters", func(s *api.ClusterStatus) bool { return voters(s) == 3 })
	for _, n := range s.Nodes {
		switch {
		case n.Role == api.RoleVoter && n.Node != s.InitNode:
			away = n.Node
		case n.Node == s.InitNode:
			watcher = n.Node
		}
	}
	c.do(watcher, "clreg", "put", "/voters", "three")
	c.ok(c.Crash(c.ctx(), away))
	votes := func(s *api.ClusterStatus, n id.Node) bool {
		info, _ := s.Find(n)
		return info.Role == api.RoleVoter
	}
	s = c.await(watcher, "another voter in its place", func(s *api.ClusterStatus) bool { return voters(s) == 3 && !votes(s, away) })
	c.ok(c.StartNode(c.ctx(), away))
	c.whole(first(5))
	// The new three are enough without it, and without the first init too.
	for _, n := range s.Nodes {
		if votes(s, n.Node) && n.Node != watcher {
			c.ok(c.Crash(c.ctx(), watcher))
			c.state(n.Node, watcher, api.Down)
			if got := c.do(n.Node, "clreg", "get", "/voters"); got != "three\n" {
				t.Errorf("a new voter reads %q", got)
			}
			checkHistories(c, n.Node, away)
			return
		}
	}
	t.Error("no other voter")
}

// TestEmptyDisk: a voter loses its disk and starts again under its number, once
// the init node and once another; the others give it back what they have.
func TestEmptyDisk(t *testing.T) {
	for _, n := range []id.Node{1, 3} {
		t.Run(n.String(), func(t *testing.T) {
			c := start(t, 3)
			c.do(2, "clreg", "put", "/disk", "before")
			// PID 1 would start the daemon again: the log goes while the daemon is
			// frozen, and the power before it can notice.
			c.do(n, "sh", "-c", "pkill -STOP -xf 'ssi node'; rm -rf /var/lib/ssi/raft")
			c.ok(c.Crash(c.ctx(), n))
			c.state(2, n, api.Down)
			c.do(2, "clreg", "put", "/disk", "while away")
			c.ok(c.StartNode(c.ctx(), n))
			c.whole(first(3))
			if got := c.do(n, "clreg", "get", "/disk"); got != "while away\n" {
				t.Errorf("node %d has an empty disk and reads %q", n, got)
			}
			c.do(n, "clreg", "put", "/disk", "after")
			if got := c.do(2, "clreg", "get", "/disk"); got != "after\n" {
				t.Errorf("node 2 reads %q", got)
			}
			checkHistories(c, 1, 2, 3)
		})
	}
}
