package test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"ssi/internal/api"
	"ssi/internal/id"
)

// killNodeRole ends the node daemon of a node as a bug would, and waits until
// another one serves.
func (c *cluster) killNodeRole(n id.Node) {
	c.t.Helper()
	before := strings.TrimSpace(c.do(n, "pgrep", "-P", "1", "-xf", "ssi node"))
	c.do(n, "kill", "-9", before)
	c.await(n, "a new daemon", func(s *api.ClusterStatus) bool { return s.Serving })
	if after := strings.TrimSpace(c.do(n, "pgrep", "-P", "1", "-xf", "ssi node")); after == before {
		c.t.Errorf("node %d: the daemon is still process %s", n, after)
	}
}

// TestKillNodeRole kills the daemon of each node while commands run there and
// writes come in: no node leaves the cluster, no acknowledged write is lost, and
// every command ends, well or with a clear error.
func TestKillNodeRole(t *testing.T) {
	// The lease of the lan profile leaves time to start a daemon on a busy machine.
	c := start(t, 3, profile("lan"))
	before := len(c.history(1))
	for n := id.Node(1); n <= 3; n++ {
		from := n%3 + 1
		var wg sync.WaitGroup
		type end struct {
			out    string
			status int
		}
		ends := make([]end, 4)
		started := make(chan struct{}, len(ends))
		for i := range ends {
			wg.Go(func() {
				started <- struct{}{}
				ends[i].out, ends[i].status = c.try(from, "onnode", n.String(), "sleep", "60")
			})
		}
		for range ends {
			<-started
		}
		c.awaitProcesses(n, "sleep 60", len(ends))
		c.do(from, "clreg", "put", fmt.Sprintf("/kill/%d", n), "before")
		c.killNodeRole(n)
		wg.Wait()
		for _, e := range ends {
			if e.status != 255 || !strings.Contains(e.out, fmt.Sprintf("node %d", n)) || strings.Count(strings.TrimSpace(e.out), "\n") != 0 {
				t.Errorf("a command on node %d ended with status %d and %q; want 255 and one line that names the node", n, e.status, e.out)
			}
		}
		c.awaitProcesses(n, "sleep 60", 0)
		if got := c.do(n, "clreg", "get", fmt.Sprintf("/kill/%d", n)); got != "before\n" {
			t.Errorf("node %d reads %q", n, got)
		}
		if got := c.do(from, "onnode", n.String(), "echo", "again"); got != "again\n" {
			t.Errorf("node %d runs commands again: %q", n, got)
		}
	}
	for _, tr := range c.history(1)[before:] {
		if tr.Term == 0 {
			t.Errorf("a node changed its state: %+v", tr)
		}
	}
}

// TestKillSpawnRole kills the helper that creates processes: commands that run
// go on, since they are children of PID 1.
func TestKillSpawnRole(t *testing.T) {
	c := start(t, 2)
	c.do(2, "mkfifo", "/run/go")
	done := make(chan string, 1)
	go func() {
		out, status := c.try(1, "onnode", "2", "sh", "-c", "read go </run/go; echo survived")
		done <- fmt.Sprintf("%s%d", out, status)
	}()
	c.awaitProcesses(2, "read go", 1)
	c.do(2, "pkill", "-9", "-xf", "ssi spawn")
	c.do(2, "sh", "-c", "echo go >/run/go")
	if got := <-done; got != "survived\n0" {
		t.Errorf("the command ended with %q", got)
	}
	c.await(1, "commands run again", func(*api.ClusterStatus) bool {
		out, status := c.try(1, "onnode", "2", "echo", "again")
		return status == 0 && out == "again\n"
	})
}

// awaitProcesses waits until node n has this many processes whose command line
// contains text.
func (c *cluster) awaitProcesses(n id.Node, text string, want int) {
	c.t.Helper()
	c.await(n, fmt.Sprintf("%d processes %q", want, text), func(*api.ClusterStatus) bool {
		// The bracket keeps pgrep from finding its own shell.
		out, _ := c.try(n, "pgrep", "-fc", "["+text[:1]+"]"+text[1:])
		return strings.TrimSpace(out) == fmt.Sprint(want)
	})
}
