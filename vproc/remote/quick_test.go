package remote

import (
	"os"
	"strconv"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
	"ssi/vproc/call"
)

// What Quick decides knowing little of the caller, Handle says too, and nobody is
// asked; the rest is left to Handle.
func TestQuick(t *testing.T) {
	w := newWorld(t)
	theirs := w.there(Start{Args: sleeps(), Session: true})
	ours := w.here(Start{Args: sleeps()})
	const down = 5<<id.PIDShift + 400 // of a node that is not there
	var asked atomic.Bool
	w.peers.setHook(func(method string) error {
		if method == methodCall { // not what watches the processes of pidfds
			asked.Store(true)
		}
		return nil
	})
	const no = "not decided"
	for _, c := range []struct {
		name string
		nr   call.Nr
		args []int
		want string
	}{
		{"own number", call.ClusternodeNum, nil, "1"},
		{"available", call.ClusternodeAvail, []int{2}, "1"},
		{"not available", call.ClusternodeAvail, []int{4}, "0"},
		{"no node", call.ClusternodeAvail, []int{0}, "EINVAL"},
		{"reserved", call.Rexecve, nil, "ENOSYS"},
		{"here", call.Kill, []int{ours, 0}, "continue"},
		{"stop here", call.Kill, []int{ours, int(unix.SIGSTOP)}, "continue"},
		{"mask here", call.SchedSetaffinity, []int{ours, 8, 1}, "continue"},
		{"limits here", call.Prlimit64, []int{ours, 7, 1, 1}, "continue"},
		{"a thread elsewhere of a process here", call.Tgkill, []int{ours, theirs, 0}, "continue"},
		{"PID 1", call.Getpgid, []int{1}, "continue"},
		{"not a PID", call.Kill, []int{1 << 30, 0}, "continue"},
		{"negative", call.Getsid, []int{-7}, "continue"},
		{"itself", call.Getpriority, []int{0, 0}, "continue"},
		{"which", call.Getpriority, []int{3, theirs}, "continue"},
		{"a node that is down", call.Kill, []int{down, 9}, "continue"},
		{"pidfd of a node that is down", call.PidfdOpen, []int{down}, "continue"},
		{"there", call.Kill, []int{theirs, 0}, no},
		{"pidfd", call.PidfdOpen, []int{theirs}, no},
		{"setpgid", call.Setpgid, []int{theirs, theirs}, "continue"},
		{"a group of this node alone", call.Kill, []int{-300, 0}, "continue"},
		{"a group that may be anywhere", call.Kill, []int{-theirs, 0}, no},
		{"the own group", call.Kill, []int{0, 0}, no},
		{"a user", call.Getpriority, []int{2, 0}, no},
		{"everyone", call.Kill, []int{-1, 0}, no},
		{"a file", call.PidfdSendSignal, []int{0, 0}, no},
		{"ptrace, none", call.Ptrace, []int{ptraceTraceme, theirs}, "continue"},
		{"ptrace, here", call.Ptrace, []int{ptraceAttach, ours}, "continue"},
		{"ptrace, down", call.Ptrace, []int{ptraceAttach, down}, "continue"},
		{"ptrace, there", call.Ptrace, []int{ptraceAttach, theirs}, no},
		{"kcmp, both here", call.Kcmp, []int{ours, 1}, "continue"},
		{"kcmp, down and there", call.Kcmp, []int{down, theirs}, "continue"},
		{"kcmp, here and there", call.Kcmp, []int{ours, theirs}, no},
	} {
		r := w.request(caller(alice), c.nr, c.args...)
		little := *r
		little.Caller = call.Caller{Node: 1, TID: r.Caller.TID, PGID: r.Caller.PGID}
		asked.Store(false)
		o, ok := w.m.Quick(&little)
		if asked.Load() {
			t.Errorf("%s: node 2 was asked", c.name)
		}
		got := no
		if ok {
			got = said(o)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if whole := said(w.handle(r)); ok && whole != got {
			t.Errorf("%s: %s, but at length %s", c.name, got, whole)
		}
	}
	r := w.request(call.Caller{Node: 1, TID: 7, PGID: 300}, call.Kill, 0, 0)
	if o, ok := w.m.Quick(r); !ok || said(o) != "continue" {
		t.Errorf("the own group, of this node alone: %v, %s", ok, said(o))
	}
	stands := w.stands(2<<id.PIDShift + 7)
	w.peers.down.Store(true)
	for pid, want := range map[int]string{theirs: "continue", stands: "ESRCH"} {
		if o, ok := w.m.Quick(w.request(caller(0), call.Kill, pid, 9)); !ok || said(o) != want {
			t.Errorf("kill of %d, whose node is down: %v, %s", pid, ok, said(o))
		}
	}
	if err := unix.Kill(stands, 0); err != nil {
		t.Errorf("what stands here for a process: %v", err)
	}
}

// A call that changes nothing, by a caller whose right it is, is told the same
// without a deputy.
func TestAllowed(t *testing.T) {
	w := newWorld(t)
	hers := w.there(Start{Args: sleeps(), UID: alice, Session: true})
	kill, resource := caller(bob), caller(bob)
	kill.Caps, resource.Caps = 1<<unix.CAP_KILL, 1<<unix.CAP_SYS_RESOURCE
	read := "0"
	if w.m.caps&resource.Caps == 0 { // nobody gets more than the daemon has
		read = "EPERM"
	}
	for _, c := range []struct {
		name string
		who  call.Caller
		nr   call.Nr
		args []int
		want string
		by   bool
	}{
		{"kill", kill, call.Kill, []int{hers, 0}, "0", true},
		{"kill, a group", kill, call.Kill, []int{-hers, 0}, "0", true},
		{"kill, nobody", kill, call.Kill, []int{nobody, 0}, "ESRCH", true},
		{"kill, a group of nobody", kill, call.Kill, []int{-nobody, 0}, "continue", true},
		{"kill, a signal", kill, call.Kill, []int{hers, int(unix.SIGCONT)}, "0", false},
		{"kill, everyone", kill, call.Kill, []int{-1, 0}, "0", false},
		{"kill, another capability", resource, call.Kill, []int{hers, 0}, "EPERM", false},
		{"tgkill", kill, call.Tgkill, []int{hers, hers, 0}, "0", true},
		{"prlimit", resource, call.Prlimit64, []int{hers, unix.RLIMIT_NOFILE, 0, 0}, read, true},
		{"prlimit, another capability", kill, call.Prlimit64, []int{hers, unix.RLIMIT_NOFILE, 0, 0}, "EPERM", false},
	} {
		r := w.request(c.who, c.nr, c.args...)
		if by := allowed(r, r.Caller.Caps); by != c.by {
			t.Errorf("%s: allowed is %v", c.name, by)
		}
		if got := said(w.handle(r)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// stands starts a program here that has the PID pid of another node.
func (w *world) stands(pid int) int {
	w.t.Helper()
	must(w.t, os.WriteFile("/proc/sys/kernel/ns_last_pid", strconv.AppendInt(nil, int64(pid-1), 10), 0))
	if got := w.here(Start{Args: sleeps()}); got != pid {
		w.t.Fatalf("PID %d, want %d", got, pid)
	}
	return pid
}
