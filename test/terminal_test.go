package test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ssi/internal/id"
	"ssi/internal/pty"
)

// screen is a user at a terminal: a shell on a node, behind a real
// pseudoterminal whose other side the test types on and reads.
type screen struct {
	c      *cluster
	master *os.File
	cmd    *exec.Cmd
	grown  chan struct{} // one place: there is more to read

	mu   sync.Mutex
	seen bytes.Buffer
	read int // how much of seen expect has consumed
}

// sit starts an interactive bash on a node.
func (c *cluster) sit(n id.Node) *screen {
	c.t.Helper()
	master, slave, err := pty.Open()
	c.ok(err)
	c.ok(pty.SetSize(master, 24, 80))
	s := &screen{c: c, master: master, grown: make(chan struct{}, 1)}
	s.cmd = exec.CommandContext(c.t.Context(), binary, "lab", "--name", c.Name, "exec", n.String(),
		"env", "PS1=READY> ", "TERM=dumb", "bash", "--norc", "--noprofile", "--noediting", "-i")
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = slave, slave, slave
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	c.ok(s.cmd.Start())
	c.ok(slave.Close())
	var reading sync.WaitGroup
	reading.Go(s.copy)
	c.t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		_ = master.Close()
		reading.Wait()
		if c.t.Failed() {
			c.t.Logf("the terminal:\n%s", s.seen.String())
		}
	})
	s.expect(`READY> $`)
	return s
}

func (s *screen) copy() {
	b := make([]byte, 4096)
	for {
		n, err := s.master.Read(b)
		s.mu.Lock()
		s.seen.Write(b[:n])
		s.mu.Unlock()
		select {
		case s.grown <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// keys types.
func (s *screen) keys(text string) {
	s.c.t.Helper()
	_, err := s.master.WriteString(text)
	s.c.ok(err)
}

// expect waits until what came since the last expect matches, and returns the
// first group of the match, or all of it.
func (s *screen) expect(pattern string) string {
	s.c.t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.After(patience)
	for {
		s.mu.Lock()
		text := s.seen.String()[s.read:]
		m := re.FindStringSubmatchIndex(text)
		if m != nil {
			s.read += m[1]
		}
		s.mu.Unlock()
		if m != nil {
			if len(m) > 2 {
				return text[m[2]:m[3]]
			}
			return text[m[0]:m[1]]
		}
		select {
		case <-s.grown:
		case <-deadline:
			s.c.t.Fatalf("the terminal does not show %q; since the last match: %q", pattern, text)
		}
	}
}

// line types a line at the prompt and returns what came of it.
func (s *screen) line(text string) string {
	s.c.t.Helper()
	s.keys(text + "\n")
	out := s.expect(`(?s)` + regexp.QuoteMeta(text) + `\r\n(.*)READY> $`)
	return strings.ReplaceAll(out, "\r\n", "\n")
}

// TestTerminal sits at a shell on node 1 and uses node 2 as if it were here.
func TestTerminal(t *testing.T) {
	c := start(t, 2)
	s := c.sit(1)
	if got := s.line("onnode 2 sh -c 'test -t 0 && test -t 1 && test -t 2 && stty size && uname -n'"); got != "24 80\nnode2\n" {
		t.Errorf("a terminal on node 2: %q", got)
	}

	// ^C ends the command, not the shell.
	s.keys("onnode 2 sh -c 'echo started; sleep 1000'\n")
	s.expect(`\nstarted\r\n`)
	c.running(2, "sleep 1000", 1) // before it runs, the shell itself can lose ^C
	s.keys("\x03")
	s.expect(`READY> $`)
	if got := s.line("echo $?"); got != "130\n" {
		t.Errorf("after ^C $? is %q", got)
	}
	c.running(2, "sleep 1000", 0)

	// ^Z stops it, fg and bg continue it; it is a job of this shell.
	s.keys("onnode 2 python3 -c 'print(\"up\", flush=True); print(\"got\", input())'\n")
	s.expect(`\nup\r\n`)
	s.keys("\x1a")
	s.expect(`Stopped`)
	s.expect(`READY> $`)
	stopped := func() bool { return strings.HasPrefix(c.do(2, "sh", "-c", "ps -o stat= -C python3"), "T") }
	c.eventually("the program on node 2 is stopped", stopped)
	if got := s.line("jobs"); !strings.Contains(got, "Stopped") || !strings.Contains(got, "onnode 2 python3") {
		t.Errorf("jobs said %q", got)
	}
	s.keys("fg\n")
	c.eventually("the program on node 2 goes on", func() bool { return !stopped() })
	s.keys("a line\n")
	s.expect(`got a line\r\n`)
	s.expect(`READY> $`)

	s.keys("onnode 2 sh -c 'echo up; sleep 1000; echo not reached'\n")
	s.expect(`\nup\r\n`)
	c.running(2, "sleep 1000", 1)
	s.keys("\x1a")
	s.expect(`Stopped`)
	s.expect(`READY> $`)
	s.line("bg")
	c.eventually("the program on node 2 goes on", func() bool {
		return strings.HasPrefix(c.do(2, "sh", "-c", "ps -o stat= -p $(pgrep -xf 'sleep 1000')"), "S")
	})
	if got := s.line("jobs"); !strings.Contains(got, "Running") {
		t.Errorf("after bg jobs said %q", got)
	}
	s.line("kill %1")
	c.running(2, "sleep 1000", 0)

	// The size of the window follows.
	s.line("wait")
	s.keys(`onnode 2 python3 -c 'import os, signal as s; w = [s.SIGWINCH]; s.pthread_sigmask(s.SIG_BLOCK, w); print("ready", flush=True); s.sigwait(w); print(*os.get_terminal_size())'` + "\n")
	s.expect(`\nready\r\n`)
	c.ok(pty.SetSize(s.master, 40, 132))
	s.expect(`132 40\r\n`)
	s.expect(`READY> $`)

	// A shell there has job control of its own.
	s.keys("PS1='THERE> ' onnode 2 bash --norc --noprofile --noediting -i\n")
	s.expect(`THERE> $`)
	s.keys("tty; set -o | grep monitor\n")
	s.expect(`/dev/pts/\d+\r\nmonitor +\ton\r\n`)
	s.expect(`THERE> $`)
	s.keys("sleep 1000\n")
	c.running(2, "sleep 1000", 1)
	s.keys("\x1a")
	s.expect(`Stopped`)
	s.expect(`THERE> $`)
	s.keys("kill %1; wait; uname -n\n")
	s.expect(`\nnode2\r\n`)
	s.expect(`THERE> $`)
	s.keys("exit 5\n")
	s.expect(`READY> $`)
	if got := s.line("echo $?"); got != "5\n" {
		t.Errorf("the shell on node 2 ended with %q", got)
	}

	// In the background, and in a pipe whose other end is here.
	s.line("onnode 2 sleep 1000 &")
	c.running(2, "sleep 1000", 1)
	s.line("kill $!")
	c.running(2, "sleep 1000", 0)
	if got := s.line("wait $!; echo $?"); !strings.HasSuffix(got, "143\n") {
		t.Errorf("after kill $! wait said %q", got)
	}
	if got := s.line("echo through | onnode 2 cat | tr a-z A-Z"); got != "THROUGH\n" {
		t.Errorf("in a pipe: %q", got)
	}
	// The terminal is as it was before.
	if got := s.line("stty -a | grep -o ' echo '"); got != " echo \n" {
		t.Errorf("the terminal's modes: %q", got)
	}
}

// TestHangUp closes the user's terminal: what ran in it on another node ends.
func TestHangUp(t *testing.T) {
	c := start(t, 2)
	for i := range 2 {
		s := c.sit(1)
		s.keys(fmt.Sprintf("onnode 2 sh -c 'echo up; sleep 100%d'\n", i))
		s.expect(`\nup\r\n`)
		if i == 0 {
			c.ok(s.cmd.Process.Kill()) // the terminal's program dies
		} else {
			s.c.do(1, "sh", "-c", "pkill -9 -f '^onnode 2 sh'") // the client of the command dies
		}
		c.running(2, fmt.Sprintf("sleep 100%d", i), 0)
	}
}
