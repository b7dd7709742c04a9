package test

import (
	"strings"
	"testing"

	"ssi/internal/api"
	"ssi/internal/id"
	"ssi/lab"
)

// becomeWitness takes node n out of the cluster in order, puts its state aside,
// and makes its machine a witness; it returns the number the witness got.
func (c *cluster) becomeWitness(n id.Node) id.Node {
	c.t.Helper()
	c.do(1, "clusternode_shutdown", "-h", "-N", n.String(), "now")
	c.off(n)
	c.do(1, "cluster", "revoke", n.String())
	c.await(1, "two voters", func(s *api.ClusterStatus) bool { return voters(s) == 2 })
	c.ok(c.StartNode(c.ctx(), n))
	c.do(n, "sh", "-c", "mv /var/lib/ssi /var/lib/ssi.old; pkill -9 -xf 'ssi node'; true")
	c.eventually("no cluster", func() bool {
		out, _ := c.try(n, "cluster")
		return strings.Contains(out, "not a node of a cluster yet")
	})
	out := c.do(n, "sh", "-c", `printf '%s\n' "$0" | cluster witness 10.85.0.1`, c.token(api.TokenParams{Witness: true}))
	if !strings.Contains(out, "is a witness of cluster") {
		c.t.Errorf("cluster witness said %q", out)
	}
	s := c.await(1, "a witness that votes", func(s *api.ClusterStatus) bool { return voters(s) == 2 && witness(s) != 0 })
	return witness(s)
}

// off waits until the machine of node n is switched off.
func (c *cluster) off(n id.Node) {
	c.t.Helper()
	c.eventually("machine "+n.String()+" off", func() bool {
		s, err := c.Status(c.ctx())
		c.ok(err)
		for _, node := range s.Nodes {
			if node.Node == n {
				return node.State == lab.Off
			}
		}
		return false
	})
}

// voters counts the nodes that vote, the witness apart.
func voters(s *api.ClusterStatus) int {
	count := 0
	for _, n := range s.Nodes {
		if n.Role == api.RoleVoter {
			count++
		}
	}
	return count
}

func witness(s *api.ClusterStatus) id.Node {
	for _, n := range s.Nodes {
		if n.Role == api.RoleWitness && n.State == api.Up && n.Phase == "" { // it votes
			return n.Node
		}
	}
	return 0
}

// TestWitness: two nodes and a machine that only votes survive the death of
// either node, with one init at any time.
func TestWitness(t *testing.T) {
	c := start(t, 3)
	w := c.becomeWitness(3)
	if got := c.do(1, "onall", "uname", "-n"); strings.Contains(got, "node3") || strings.Count(got, "\n") != 2 {
		t.Errorf("onall with a witness ran on %q", got)
	}
	c.fails(1, 255, []string{"node " + w.String()}, "onnode", w.String(), "true")
	for n := id.Node(1); n <= 2; n++ {
		other := 3 - n
		c.do(n, "clreg", "put", "/before", n.String())
		c.ok(c.Crash(c.ctx(), n))
		s := c.state(other, n, api.Down)
		if s.InitNode != other {
			t.Errorf("node %d is dead and node %d holds init, not node %d", n, s.InitNode, other)
		}
		if got := c.do(other, "clreg", "get", "/before"); got != n.String()+"\n" {
			t.Errorf("node %d survived and reads %q", other, got)
		}
		c.do(other, "clreg", "put", "/while", n.String())
		c.ok(c.StartNode(c.ctx(), n))
		c.state(other, n, api.Up)
		c.await(n, "serving", func(s *api.ClusterStatus) bool { return s.Serving })
		if got := c.do(n, "clreg", "get", "/while"); got != n.String()+"\n" {
			t.Errorf("node %d came back and reads %q", n, got)
		}
	}
	// Cut from each other, both see the witness: one of them stays, the other
	// fences itself.
	c.ok(c.Cut(c.ctx(), 1, 2, false))
	c.await(1, "one of two", func(s *api.ClusterStatus) bool {
		other, err := call[api.ClusterStatus](c.ctx(), c, 2, api.MethodClusterStatus, api.StatusParams{})
		return err == nil && s.Serving != other.Serving
	})
	c.ok(c.Heal(c.ctx(), 0, 0))
	for n := id.Node(1); n <= 2; n++ {
		c.await(n, "serving after the cut", func(s *api.ClusterStatus) bool { return s.Serving })
	}
	for _, tr := range c.history(1) {
		if tr.Term != 0 && tr.Node == w {
			t.Errorf("the witness took init: %+v", tr)
		}
	}
	checkHistories(c, 1, 2)
}
