package test

import (
	"fmt"
	"strings"
	"testing"

	"ssi/internal/id"
)

// stopped waits until the one process of this command line on a node is stopped, or
// is not.
func (c *cluster) stopped(n id.Node, line string, want bool) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("%q on node %d is stopped: %v", line, n, want), func() bool {
		out, _ := c.try(n, "sh", "-c", fmt.Sprintf("ps -o stat= -p $(pgrep -xf '%s')", line))
		return out != "" && strings.HasPrefix(out, "T") == want
	})
}

// TestJob: a pipe one side of which is on another node is one job of an interactive
// bash.
func TestJob(t *testing.T) {
	c := start(t, 2)
	s := c.sit(1)
	s.keys("onnode 2 sleep 4741 | cat\n")
	c.running(2, "sleep 4741", 1)
	s.keys("\x03")
	s.expect(`READY> $`)
	c.running(2, "sleep 4741", 0)
	c.running(1, "cat", 0)
	if got := s.line("echo ${PIPESTATUS[*]}"); got != "130 130\n" {
		t.Errorf("after ^C the statuses are %q", got)
	}

	s.keys("onnode 2 sleep 4742 | cat\n")
	c.running(2, "sleep 4742", 1)
	c.running(1, "cat", 1)
	s.keys("\x1a")
	s.expect(`Stopped`)
	s.expect(`READY> $`)
	c.stopped(2, "sleep 4742", true)
	c.stopped(1, "cat", true)
	s.line("bg")
	c.stopped(2, "sleep 4742", false)
	c.stopped(1, "cat", false)
	if got := s.line("jobs"); !strings.Contains(got, "Running") || strings.Count(got, "[") != 1 {
		t.Errorf("after bg jobs said %q", got)
	}
	s.keys("fg\n")
	s.expect(`onnode 2 sleep 4742 \| cat\r\n`)
	s.keys("\x1a")
	s.expect(`Stopped`)
	s.expect(`READY> $`)
	c.stopped(2, "sleep 4742", true)
	s.line("kill %1; bg 2>/dev/null")
	c.running(2, "sleep 4742", 0)
	c.running(1, "cat", 0)
	if got := s.line("wait %1 2>/dev/null; jobs"); strings.Contains(got, "Running") || strings.Contains(got, "Stopped") {
		t.Errorf("after kill %%1 jobs said %q", got)
	}

	// The status of a pipe is that of its last command, of whichever node.
	if got := s.line("true | onnode 2 sh -c 'exit 7'; echo $?"); got != "7\n" {
		t.Errorf("a status: %q", got)
	}
	s.line("onnode 2 sh -c 'kill -USR1 $$' &")
	if got := s.line("wait $!; echo $?"); !strings.HasSuffix(got, "138\n") {
		t.Errorf("killed by SIGUSR1, wait said %q", got)
	}

	// Scripts have no jobs, and know their children all the same.
	for _, shell := range []string{"bash", "dash"} {
		c.stock(nil, shell+` -c 'onnode 2 sleep 4743 & kill -TERM $!; wait $! 2>/dev/null; echo $?' 2>/dev/null`, `^143\n$`)
		c.stock(nil, shell+` -c 'trap "echo trapped" USR1; onnode 2 sh -c "kill -USR1 $$"; echo $?'`, `^trapped\n0\n$`)
	}
	c.stock(nil, `python3 -c '
import os, subprocess
p = subprocess.Popen(["onnode", "2", "python3", "-c", "import os; print(os.getpid(), os.getppid(), os.getpgrp(), os.getsid(0))"], stdout=subprocess.PIPE, text=True)
out = list(map(int, p.communicate()[0].split()))
print(out == [p.pid, os.getpid(), os.getpgrp(), os.getsid(0)], p.returncode)'`, `^True 0\n$`)
}

// TestStockWatchers: what shows or traces processes while it runs.
func TestStockWatchers(t *testing.T) {
	c := start(t, 2)
	if got := c.login(1, "", "onnode", "2", "sh", "-c", "setsid sleep 4751 </dev/null >/dev/null 2>&1 &"); got.status != 0 {
		t.Fatalf("%+v", got)
	}
	c.eventually("node 1 sees it", func() bool { return c.login(1, "", "pgrep", "-xf", "sleep 4751").status == 0 })
	c.stock(nil, "strace -f -o /run/trace onnode 2 sh -c 'exit 3'; echo $?; grep -c execve /run/trace", `^3\n[1-9]`)
	c.stock(nil, "gdb -batch -ex run -ex 'print $_exitcode' --args onnode 2 sh -c 'exit 4' 2>/dev/null | tail -n 1", `= 4\n$`)
	c.stock(nil, "pstree -a | grep -c '[s]leep 4751'", `^1\n$`)

	s := c.sit(1)
	s.keys("TERM=xterm htop -d 5 -C -p $(pgrep -xf 'sleep 4751')\n")
	s.expect(`sleep 4751`)
	s.keys("q")
	s.expect(`READY> $`)
}
