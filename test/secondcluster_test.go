package test

import (
	"strings"
	"testing"

	"ssi/internal/api"
	"ssi/internal/id"
)

// TestSecondCluster founds a second cluster on the same wire, on a machine whose
// daemon runs as a node of the first: the daemon takes it up by itself, the two
// clusters do not disturb each other, and a line in the log says why they do not
// talk.
func TestSecondCluster(t *testing.T) {
	c := start(t, 3)
	c.do(1, "clreg", "put", "/whose", "first")
	c.fails(3, 1, []string{"node 3 of cluster", "--force"}, "cluster", "init", "--name", "second")
	if out := c.do(3, "cluster", "init", "--name", "second", "--force"); !strings.Contains(out, "node 1 of cluster second") {
		t.Errorf("cluster init said %q", out)
	}
	c.await(3, "serving as node 1 of the second cluster", func(s *api.ClusterStatus) bool {
		return s.Serving && s.Name == "second" && s.Self == 1 && s.InitNode == 1
	})
	c.state(1, 3, api.Down)
	c.awaitLog(3, "peer=10.85.0.1", "refuses this node")

	// The state directory may be a mount point.
	if out := c.do(1, "unshare", "-m", "sh", "-c", `mount -t tmpfs none /var/lib/ssi && cluster init --name a >/dev/null &&
		cluster init --name b --force && ls /var/lib/ssi/aside.*/cluster.json`); !strings.Contains(out, "node 1 of cluster b") {
		t.Errorf("cluster init --force at a mount point said %q", out)
	}

	c.do(3, "clreg", "put", "/whose", "second")
	for n, want := range map[int]string{1: "first\n", 2: "first\n", 3: "second\n"} {
		if got := c.do(id.Node(n), "clreg", "get", "/whose"); got != want {
			t.Errorf("machine %d reads %q, want %q", n, got, want)
		}
	}
	if got := c.do(3, "onall", "uname", "-n"); got != "node3: node3\n" {
		t.Errorf("onall in the second cluster: %q", got)
	}
	if got := c.do(1, "onall", "uname", "-n"); strings.Contains(got, "node3") || strings.Count(got, "\n") != 2 {
		t.Errorf("onall in the first cluster: %q", got)
	}
	// The second one is restarted beside the first.
	c.ok(c.Crash(c.ctx(), 3))
	c.do(1, "clreg", "put", "/whose", "still the first")
	c.ok(c.StartNode(c.ctx(), 3))
	c.await(3, "serving again", func(s *api.ClusterStatus) bool { return s.Serving && s.Name == "second" })
	if got := c.do(3, "clreg", "get", "/whose"); got != "second\n" {
		t.Errorf("the second cluster came back and reads %q", got)
	}
	checkHistories(c, 1, 2)
}
