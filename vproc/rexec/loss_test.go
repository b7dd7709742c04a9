package rexec_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// running starts a command on a node and waits until it says so.
type running struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  io.ReadCloser
	errs *bytes.Buffer
}

func start(t *testing.T, m *machine, node int, script string) *running {
	t.Helper()
	r := &running{t: t, cmd: m.onnode(node, "sh", "-c", script), errs: &bytes.Buffer{}}
	r.cmd.Stderr = r.errs
	var err error
	if r.out, err = r.cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.cmd.Process.Kill(); _ = r.cmd.Wait() })
	ready := make([]byte, 6)
	if _, err := io.ReadFull(r.out, ready); err != nil || string(ready) != "ready\n" {
		t.Fatalf("%q, %v, %s", ready, err, r.errs)
	}
	return r
}

// wait returns how the caller ended.
func (r *running) wait() (errs string, status int) {
	r.t.Helper()
	timer := time.AfterFunc(20*time.Second, func() { _ = r.cmd.Process.Kill() })
	defer timer.Stop()
	_, _ = io.Copy(io.Discard, r.out)
	_, errs, status = o2s(r.cmd.Wait(), r.cmd, &bytes.Buffer{}, r.errs, r.t)
	return errs, status
}

// mark makes scripts of one test that can be found: a sleep of its own length.
func mark(n int) (sleep string, found func() bool) {
	s := fmt.Sprintf("%d.%d", 9000+n, os.Getpid())
	return "sleep " + s, func() bool { return alive("sleep", s) }
}

func TestLossOfTheCaller(t *testing.T) {
	base := t.TempDir()
	m := boot(t, base, 1)
	boot(t, base, 2)
	for node := 1; node <= 2; node++ {
		polite, politeLives := mark(10 + node)
		stubborn, stubbornLives := mark(20 + node)
		left, leftLives := mark(30 + node)
		a := start(t, m, node, "echo ready; "+polite)
		b := start(t, m, node, "trap '' HUP; setsid "+left+" & echo ready; "+stubborn)
		if !politeLives() || !stubbornLives() || !leftLives() {
			eventually(t, "commands run", func() bool { return politeLives() && stubbornLives() && leftLives() })
		}
		signalOnnode(t, a.cmd, syscall.SIGKILL)
		signalOnnode(t, b.cmd, syscall.SIGKILL)
		eventually(t, "SIGHUP ends the command", func() bool { return !politeLives() })
		eventually(t, "SIGKILL ends the command that ignores SIGHUP", func() bool { return !stubbornLives() })
		if !leftLives() {
			t.Error("a process that left the session was ended")
		}
	}
	eventually(t, "no notes left", func() bool {
		e, err := os.ReadDir(base + "/node2/rexec")
		return err == nil && len(e) == 0
	})
}

func TestLossOfARole(t *testing.T) {
	base := t.TempDir()
	m1, m2 := boot(t, base, 1), boot(t, base, 2)
	t.Run("node there", func(t *testing.T) {
		sleep, lives := mark(1)
		r := start(t, m1, 2, "echo ready; "+sleep)
		kill(t, m2.role("node"))
		errs, status := r.wait()
		if want := "onnode: node 2: the connection was lost while sh ran there\n"; errs != want || status != 255 {
			t.Errorf("%q %d, want %q", errs, status, want)
		}
		m2.awaitReady()
		eventually(t, "the new node role ends the command", func() bool { return !lives() })
		if out, errs, status := result(t, m1.onnode(2, "echo", "works")); out != "works\n" || status != 0 {
			t.Errorf("%q %q %d", out, errs, status)
		}
	})
	t.Run("node here", func(t *testing.T) {
		sleep, lives := mark(2)
		r := start(t, m1, 2, "echo ready; "+sleep)
		kill(t, m1.role("node"))
		errs, status := r.wait()
		if want := "onnode: the ssi daemon of this machine ended while sh ran on node 2: its result is not known\n"; errs != want || status != 255 {
			t.Errorf("%q %d, want %q", errs, status, want)
		}
		m1.awaitReady()
		eventually(t, "the command is ended", func() bool { return !lives() })
	})
	t.Run("spawn", func(t *testing.T) {
		r := start(t, m1, 2, "echo ready; read x; exit 5")
		kill(t, m2.role("spawn"))
		eventually(t, "commands start again", func() bool {
			_, _, status := result(t, m1.onnode(2, "true"))
			return status == 0
		})
		if _, status := r.wait(); status != 5 && status != 1 { // stdin is at its end
			t.Errorf("a running command was harmed: %d", status)
		}
	})
	t.Run("peer down", func(t *testing.T) {
		r := start(t, m1, 2, "echo ready; sleep 100")
		if err := m1.call("test.down2"); err != nil {
			t.Fatal(err)
		}
		errs, status := r.wait()
		if want := "onnode: node 2: left the cluster: a test (while sh ran on node 2)\n"; errs != want || status != 255 {
			t.Errorf("%q %d, want %q", errs, status, want)
		}
	})
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "role is gone", func() bool { return syscall.Kill(pid, 0) != nil })
}

func TestFence(t *testing.T) {
	base := t.TempDir()
	m1, m2 := boot(t, base, 1), boot(t, base, 2)
	sleep, lives := mark(3)
	left, leftLives := mark(4)
	r := start(t, m1, 2, "setsid "+left+" & echo ready; "+sleep)
	eventually(t, "commands run", func() bool { return lives() && leftLives() })
	if err := m2.call("test.fence"); err != nil {
		t.Fatal(err)
	}
	errs, status := r.wait()
	if want := "node 2: lost contact with the cluster: a test"; !strings.Contains(errs, want) || status != 255 {
		// The command's death by SIGKILL may be told first.
		if status != 137 {
			t.Errorf("%q %d", errs, status)
		}
	}
	eventually(t, "every command is ended", func() bool { return !lives() && !leftLives() })
	_, errs, status = result(t, m1.onnode(2, "true"))
	if want := "onnode: node 2: lost contact with the cluster and runs nothing: a test\n"; errs != want || status != 255 {
		t.Errorf("%q %d, want %q", errs, status, want)
	}
	if err := m2.call("test.unfence"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "commands run again", func() bool {
		_, _, status := result(t, m1.onnode(2, "true"))
		return status == 0
	})
}

func TestNothingLeaks(t *testing.T) {
	base := t.TempDir()
	m := boot(t, base, 1)
	m2 := boot(t, base, 2)
	count := func() (n int) {
		for _, pid := range []int{m.role("node"), m2.role("node"), m2.role("spawn"), m2.cmd.Process.Pid} {
			e, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
			if err != nil {
				t.Fatal(err)
			}
			n += len(e)
		}
		return n
	}
	run := func() {
		for _, argv := range [][]string{{"true"}, {"no-such"}, {"sh", "-c", "kill -9 $$"}} {
			_, _, _ = result(t, m.onnode(2, argv...))
		}
	}
	run()
	before := count()
	for range 10 {
		run()
	}
	eventually(t, "descriptors are closed", func() bool { return count() <= before })
}

// A command is asked to end before its node does, and its caller hears how it ended.
func TestOrderlyEnd(t *testing.T) {
	base := t.TempDir()
	m := boot(t, base, 1)
	r := start(t, m, 1, "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done")
	began := time.Now()
	_ = m.call("test.halt") // SIGTERM may be faster than the answer
	_, status := r.wait()
	err := m.cmd.Wait()
	if took := time.Since(began); took > 9*time.Second {
		t.Errorf("took %s", took)
	}
	if status != 7 {
		t.Errorf("the caller saw status %d", status)
	}
	t.Logf("PID 1: %v", err)
}
