package test

import (
	"bufio"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ssi/internal/id"
	"ssi/lab"
)

// storm is a process on node 2 that counts the values it is sent, and processes
// on node 1 that send each value once.
type storm struct {
	*cluster
	receiver string // its PID
	senders  int
}

const sendsEach = 2500

func startStorm(c *cluster, dir string, senders int) *storm {
	c.t.Helper()
	s := &storm{cluster: c, senders: senders}
	c.login(2, "", "sh", "-c", fmt.Sprintf("setsid %s/receive /run/receiver /run/counts </dev/null >/dev/null 2>&1 &", dir))
	c.eventually("the receiver", func() bool {
		out, status := c.try(2, "cat", "/run/receiver")
		s.receiver = strings.TrimSpace(out)
		return status == 0
	})
	for i := range senders {
		got := c.login(1, "", "sh", "-c", fmt.Sprintf("setsid %s/send %s %d %d /run/sent.%d </dev/null >/dev/null 2>&1 &",
			dir, s.receiver, i*sendsEach, (i+1)*sendsEach, i))
		if got.status != 0 {
			c.t.Fatalf("sender %d: %+v", i, got)
		}
	}
	return s
}

// sending reports whether senders are still at work.
func (s *storm) sending() bool {
	out, _ := s.try(1, "sh", "-c", "ls /run/sent.? 2>/dev/null | wc -l")
	return strings.TrimSpace(out) != fmt.Sprint(s.senders)
}

// results reads what the senders were told, by value.
func (s *storm) results() map[int]syscall.Errno {
	s.t.Helper()
	told := map[int]syscall.Errno{}
	for i := range s.senders {
		pairs(s.cluster, s.do(1, "cat", fmt.Sprintf("/run/sent.%d", i)), func(v, e int) { told[v] = syscall.Errno(e) })
	}
	if len(told) != s.senders*sendsEach {
		s.t.Errorf("%d sends of %d are accounted for", len(told), s.senders*sendsEach)
	}
	return told
}

// counts ends the receiver and reads how often each value came.
func (s *storm) counts() map[int]int {
	s.t.Helper()
	s.do(2, "kill", "-TERM", s.receiver)
	s.eventually("the counts", func() bool { _, status := s.try(2, "test", "-e", "/run/counts"); return status == 0 })
	came := map[int]int{}
	pairs(s.cluster, s.do(2, "cat", "/run/counts"), func(v, n int) { came[v] = n })
	return came
}

func pairs(c *cluster, text string, f func(a, b int)) {
	c.t.Helper()
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		var a, b int
		if _, err := fmt.Sscan(lines.Text(), &a, &b); err != nil {
			c.t.Fatalf("%q: %v", lines.Text(), err)
		}
		f(a, b)
	}
}

func buildStorm(t *testing.T) string {
	t.Helper()
	dir := enterable(t)
	for _, name := range []string{"send", "receive"} {
		compile(t, filepath.Join(dir, name), filepath.Join("../testdata/storm", name+".c"))
	}
	return dir
}

// TestSignalStorm: while the daemons of both nodes are killed again and again,
// every signal that was sent to a process of another node is delivered once, or
// its sender was told an error.
func TestSignalStorm(t *testing.T) {
	dir := buildStorm(t)
	c := start(t, 3, profile("lan"), func(o *lab.Options) { o.Share = append(o.Share, dir) })
	before := len(c.history(1))
	s := startStorm(c, dir, 4)
	kills := 0
	for n := id.Node(1); kills < 6 && s.sending(); n = 3 - n {
		c.killNodeRole(n)
		kills++
	}
	if kills == 0 {
		t.Error("the storm was over before a daemon was killed")
	}
	c.eventually("the senders end", func() bool { return !s.sending() })
	told, came := s.results(), s.counts()
	sent, failed := 0, map[syscall.Errno]int{}
	for v, e := range told {
		n := came[v]
		switch {
		case e == 0 && n == 1:
			sent++
			continue
		case e == 0:
			t.Errorf("value %d: sent, and came %d times", v, n)
		case e == syscall.EIO && n <= 1: // it is not known whether it was done
		case n != 0:
			t.Errorf("value %d: %v, and came %d times", v, e, n)
		}
		failed[e]++
	}
	t.Logf("%d daemons killed, %d signals delivered, errors: %v", kills, sent, failed)
	if sent < len(told)*9/10 {
		t.Errorf("only %d of %d signals were delivered", sent, len(told))
	}
	for _, tr := range c.history(1)[before:] {
		if tr.Term == 0 {
			t.Errorf("a node changed its state: %+v", tr)
		}
	}
}

// TestReceiverDies: the node of the receiver loses power in the midst of a storm:
// every sender ends, and is told that the process is gone.
func TestReceiverDies(t *testing.T) {
	dir := buildStorm(t)
	c := start(t, 3, func(o *lab.Options) { o.Share = append(o.Share, dir) })
	s := startStorm(c, dir, 2)
	c.ok(c.Crash(c.ctx(), 2))
	c.eventually("the senders end", func() bool { return !s.sending() })
	gone := 0
	for v, e := range s.results() {
		switch e {
		case 0:
		case syscall.ESRCH:
			gone++
		default:
			t.Errorf("value %d: %v", v, e)
		}
	}
	if gone == 0 {
		t.Error("nobody was told that the receiver is gone")
	}
}
