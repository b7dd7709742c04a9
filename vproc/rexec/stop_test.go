package rexec_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// pidOf finds the only process with these arguments.
func pidOf(t *testing.T, args ...string) (pid int) {
	t.Helper()
	eventually(t, strings.Join(args, " "), func() bool {
		entries, _ := os.ReadDir("/proc")
		for _, e := range entries {
			b, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
			if err == nil && string(b) == strings.Join(args, "\x00")+"\x00" {
				pid, _ = strconv.Atoi(e.Name())
				return true
			}
		}
		return false
	})
	return pid
}

func stateOf(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	return strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))[0]
}

// TestStoppedFromElsewhere: who stops, continues or kills the command itself, and
// not its caller, has the caller stop, go on and end with it.
func TestStoppedFromElsewhere(t *testing.T) {
	base := t.TempDir()
	m := boot(t, base, 1)
	boot(t, base, 2)
	for node := 1; node <= 2; node++ {
		sleep, _ := mark(50 + node)
		r := start(t, m, node, "trap 'echo went on' CONT; echo ready; while ! "+sleep+"; do :; done")
		command := pidOf(t, "sh", "-c", "trap 'echo went on' CONT; echo ready; while ! "+sleep+"; do :; done")
		sleeper := pidOf(t, strings.Fields(sleep)...)
		caller := 0
		eventually(t, "onnode", func() bool {
			kids := childrenOf(r.cmd.Process.Pid)
			if len(kids) == 1 {
				caller, _ = strconv.Atoi(kids[0])
			}
			return caller != 0
		})
		send := func(pid int, sig syscall.Signal) {
			t.Helper()
			if err := syscall.Kill(pid, sig); err != nil {
				t.Fatal(err)
			}
		}
		for range 5 {
			send(command, syscall.SIGSTOP)
			eventually(t, "the caller stops", func() bool { return stateOf(caller) == "T" })
			send(command, syscall.SIGCONT)
			eventually(t, "the caller goes on", func() bool { return stateOf(caller) != "T" && stateOf(command) != "T" })
		}
		for range 20 { // faster than the caller can follow
			send(command, syscall.SIGSTOP)
			send(command, syscall.SIGCONT)
		}
		send(command, syscall.SIGSTOP)
		eventually(t, "the caller stops at last", func() bool { return stateOf(caller) == "T" })
		send(command, syscall.SIGKILL)
		send(sleeper, syscall.SIGKILL) // it holds the output
		eventually(t, "the caller ends", func() bool { return strings.Trim(stateOf(caller), "ZX") == "" })
		send(r.cmd.Process.Pid, syscall.SIGCONT) // nsenter stopped with it
		if errs, status := r.wait(); status != 137 || errs != "" {
			t.Errorf("node %d: status %d, %q", node, status, errs)
		}
	}
}
