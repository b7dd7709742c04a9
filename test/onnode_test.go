package test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"ssi/internal/api"
	"ssi/internal/id"
)

// TestOnNode: streams, statuses and ends of commands on another node.
func TestOnNode(t *testing.T) {
	c := start(t, 2)
	t.Run("streams", func(t *testing.T) {
		c := &cluster{c.Lab, t}
		got := c.run(1, "one\ntwo\n", "onnode", "2", "sh", "-c", "cat; echo error >&2; exit 3")
		if (got != result{"one\ntwo\n", "error\n", 3}) {
			t.Errorf("the streams are mixed: %+v", got)
		}
		got = c.run(1, "", "sh", "-c", "onnode 2 sh -c 'echo out; echo err >&2' 2>&1 >/dev/null | sed s/^/piped:/")
		if got.stdout != "piped:err\n" {
			t.Errorf("stderr in a pipe: %+v", got)
		}
	})
	t.Run("big data", func(t *testing.T) {
		c := &cluster{c.Lab, t}
		data := make([]byte, 32<<20)
		var seed [32]byte
		_, _ = rand.NewChaCha8(seed).Read(data)
		want := fmt.Sprintf("%x", sha256.Sum256(data))
		got := c.run(1, string(data), "sh", "-c", "onnode 2 sh -c 'tee /tmp/big' | tee /tmp/back | sha256sum; onnode 2 sha256sum </tmp/back; onnode 2 cat /tmp/big | sha256sum; onnode 2 sha256sum /tmp/big")
		if strings.Count(got.stdout, want) != 4 || got.status != 0 {
			t.Errorf("all four sums should be %s: %+v", want, got)
		}
	})
	t.Run("closed pipe", func(t *testing.T) {
		c := &cluster{c.Lab, t}
		got := c.run(1, "", "bash", "-c", "onnode 2 yes | head -n 1; echo ${PIPESTATUS[*]}")
		if got.stdout != "y\n141 0\n" || got.stderr != "" {
			t.Errorf("head closed the pipe: %+v", got)
		}
		c.running(2, "yes", 0)
		got = c.run(1, "", "bash", "-c", "yes | onnode 2 head -n 1; echo ${PIPESTATUS[*]}")
		if got.stdout != "y\n141 0\n" || got.stderr != "" {
			t.Errorf("head on node 2 closed the pipe: %+v", got)
		}
	})
	t.Run("status", func(t *testing.T) {
		c := &cluster{c.Lab, t}
		for _, test := range []struct {
			line   string
			status int
			stderr string
		}{
			{"onnode 2 true", 0, ``},
			{"onnode 2 sh -c 'exit 77'", 77, ``},
			{"onnode 2 sh -c 'exit 255'", 255, ``},
			{"onnode 2 nosuchprogram", 127, "onnode: node 2: nosuchprogram: not found\n"},
			{"onnode 2 /etc/passwd", 126, "onnode: node 2: /etc/passwd: permission denied\n"},
			{"onnode 2 sh -c 'kill -KILL $$'; exit $?", 137, "Killed\n"},
			{"onnode 2 sh -c 'kill -TERM $$'; exit $?", 143, "Terminated\n"},
			{"onnode 2 sh -c 'kill -SEGV $$'; exit $?", 139, "Segmentation fault\n"},
		} {
			got := c.run(1, "", "sh", "-c", test.line)
			if got.status != test.status || got.stderr != test.stderr || got.stdout != "" {
				t.Errorf("%s: %+v", test.line, got)
			}
		}
	})
	t.Run("many at once", func(t *testing.T) {
		c := &cluster{c.Lab, t}
		got := c.run(1, "", "bash", "-c", `for i in $(seq 50); do echo "input $i" | onnode 2 sh -c "cat; exit $i" & pids+=($!); done
			for i in "${!pids[@]}"; do wait ${pids[$i]}; test $? = $((i+1)) || echo "command $((i+1)) ended with $?"; done`)
		lines := strings.Split(strings.TrimSpace(got.stdout), "\n")
		seen := map[string]bool{}
		for _, l := range lines {
			seen[l] = true
		}
		for i := 1; i <= 50; i++ {
			if !seen[fmt.Sprintf("input %d", i)] {
				t.Errorf("command %d's output is missing", i)
			}
		}
		if len(lines) != 50 || got.stderr != "" {
			t.Errorf("50 commands said %q and %q", got.stdout, got.stderr)
		}
	})
	t.Run("daemon", func(t *testing.T) {
		c := &cluster{c.Lab, t}
		// As in a shell, who still holds the output is waited for by the reader of
		// the pipe only; the command itself has ended.
		got := c.run(1, "", "onnode", "2", "sh", "-c", "setsid sleep 2000 >/dev/null 2>&1 </dev/null & echo started")
		if (got != result{"started\n", "", 0}) {
			t.Errorf("a command that leaves a daemon: %+v", got)
		}
		c.running(2, "sleep 2000", 1)
		c.do(2, "pkill", "-xf", "sleep 2000")
	})
	t.Run("client killed", func(t *testing.T) {
		c := &cluster{c.Lab, t}
		for _, signal := range []string{"KILL", "TERM", "HUP"} {
			c.do(1, "sh", "-c", "onnode 2 sleep 3000 >/dev/null 2>&1 </dev/null & echo $! >/run/client")
			c.running(2, "sleep 3000", 1)
			c.do(1, "sh", "-c", "kill -"+signal+" $(cat /run/client)")
			c.running(2, "sleep 3000", 0)
		}
	})
}

// lose runs a command on node 2, makes the node fail, and checks the one line
// that the user gets.
func (c *cluster) lose(what string, fail func()) {
	c.t.Helper()
	ends := make([]result, 3)
	var wg sync.WaitGroup
	for i := range ends {
		wg.Go(func() { ends[i] = c.run(1, "", "onnode", "2", "sh", "-c", "echo begun; exec sleep 4000") })
	}
	c.running(2, "sleep 4000", len(ends))
	fail()
	wg.Wait()
	for _, got := range ends {
		if got.status != 255 || got.stdout != "begun\n" || !strings.HasPrefix(got.stderr, "onnode: ") || !strings.Contains(got.stderr, "node 2") {
			c.t.Errorf("%s: %+v", what, got)
		}
		oneLine(c.t, what, got.stderr)
	}
}

// TestOnNodeLost: the other node, its daemon or the network between fails while a
// command runs there.
func TestOnNodeLost(t *testing.T) {
	c := start(t, 3)
	c.lose("the daemon was killed", func() { c.killNodeRole(2) })
	c.running(2, "sleep 4000", 0)
	c.eventually("commands run again", func() bool {
		_, status := c.try(1, "onnode", "2", "true")
		return status == 0
	})
	c.state(1, 2, api.Up)
	c.lose("the node was cut off", func() {
		c.ok(c.Cut(c.ctx(), 2, 1, false))
		c.ok(c.Cut(c.ctx(), 2, 3, false))
	})
	c.running(2, "sleep 4000", 0)
	c.ok(c.Heal(context.Background(), 0, 0))
	c.state(1, 2, api.Up)
	c.await(2, "serving", func(s *api.ClusterStatus) bool { return s.Serving })
	c.lose("the node was crashed", func() { c.ok(c.Crash(c.ctx(), 2)) })
	c.state(1, 2, api.Down)
}

// TestCallerFenced: the node of the user loses contact; what the user runs
// elsewhere ends there, and the user is told.
func TestCallerFenced(t *testing.T) {
	c := start(t, 3)
	done := make(chan result, 1)
	go func() { done <- c.run(3, "", "onnode", "1", "sleep", "5000") }()
	c.running(1, "sleep 5000", 1)
	for _, n := range []id.Node{1, 2} {
		c.ok(c.Cut(c.ctx(), 3, n, false))
	}
	got := <-done
	if got.status != 255 || !strings.HasPrefix(got.stderr, "onnode: ") {
		t.Errorf("the caller's node lost contact: %+v", got)
	}
	oneLine(t, "the caller's node lost contact", got.stderr)
	c.running(1, "sleep 5000", 0)
}
