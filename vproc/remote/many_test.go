package remote

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"ssi/vproc/call"
)

// Outcomes are put together as one kernel does it.
func TestCombine(t *testing.T) {
	const none = -int(unix.ESRCH)
	for _, c := range []struct {
		nr   call.Nr
		arg  int
		all  []int // results, or errors below 0
		want int
	}{
		{call.Kill, -9, nil, none},
		{call.Kill, -9, []int{none, none}, none},
		{call.Kill, -9, []int{none, 0, none}, 0},
		{call.Kill, -9, []int{-int(unix.EPERM), none}, -int(unix.EPERM)},
		{call.Kill, -9, []int{-int(unix.EPERM), 0}, 0},
		{call.Kill, -9, []int{0, -int(unix.EPERM)}, 0},
		{call.Kill, -9, []int{-int(unix.EIO), -int(unix.EPERM)}, -int(unix.EPERM)},
		{call.Kill, -1, []int{none, none}, none},
		{call.Kill, -1, []int{-int(unix.EPERM), none}, 0},
		{call.Kill, -1, []int{0, -int(unix.EPERM)}, 0},
		{call.Kill, -1, []int{-int(unix.EPERM), 0}, 0},
		{call.Kill, -1, []int{0, -int(unix.EINVAL)}, -int(unix.EINVAL)},
		{call.Kill, -1, []int{-int(unix.EINVAL), -int(unix.EPERM)}, -int(unix.EINVAL)},
		{call.Setpriority, 1, []int{none, 0}, 0},
		{call.Setpriority, 1, []int{none}, none},
		{call.Setpriority, 1, []int{-int(unix.EPERM), 0}, -int(unix.EPERM)},
		{call.Setpriority, 1, []int{0, -int(unix.EACCES), 0, none}, -int(unix.EACCES)},
		{call.Setpriority, 1, []int{-int(unix.EPERM), -int(unix.EACCES)}, -int(unix.EACCES)},
		{call.Getpriority, 1, []int{20, none, 25, 1}, 25},
		{call.Getpriority, 1, []int{-int(unix.EIO), 3}, 3},
		{call.Getpriority, 1, []int{3, -int(unix.EIO)}, 3},
		{call.Getpriority, 1, []int{none}, none},
		{call.IoprioGet, 2, []int{2<<13 | 6, 1<<13 | 7, none}, 1<<13 | 7},
		{call.IoprioGet, 2, []int{none}, none},
		{call.IoprioSet, 2, []int{0, none, 0}, 0},
		{call.IoprioSet, 2, []int{0, -int(unix.EPERM), 0}, -int(unix.EPERM)},
		{call.IoprioSet, 2, []int{-int(unix.EPERM), -int(unix.EIO)}, -int(unix.EPERM)},
	} {
		var all []call.Reply
		for _, n := range c.all {
			if n < 0 {
				all = append(all, call.Reply{Errno: syscall.Errno(-n)})
			} else {
				all = append(all, call.Reply{Ret: int64(n)})
			}
		}
		got := combine(&call.Request{Nr: c.nr, Args: [6]uint64{uint64(c.arg)}}, all)
		n := int(got.Ret)
		if got.Errno != 0 {
			n = -int(got.Errno)
		}
		if n != c.want {
			t.Errorf("%s(%d) of %d: %d, want %d", c.nr, c.arg, c.all, n, c.want)
		}
	}
}

// taken waits until a taker has the signal, and returns how often.
func taken(t *testing.T, out string, sig unix.Signal) int {
	t.Helper()
	count := func() (n int) {
		for _, l := range lines(t, out) {
			if strings.HasPrefix(l, fmt.Sprintf("%d ", sig)) {
				n++
			}
		}
		return n
	}
	eventually(t, "a signal", func() bool { return count() > 0 })
	return count()
}

// spared sends something else by name, which comes later, and tells whether a taker
// has not got the signal before.
func (w *world) spared(pid int, out string, sig unix.Signal) bool {
	w.t.Helper()
	const after = 45
	if got := said(w.call(caller(0), call.Kill, pid, after)); got != "0" {
		w.t.Fatalf("kill(%d, %d): %s", pid, after, got)
	}
	eventually(w.t, "the signal after", func() bool {
		return slices.ContainsFunc(lines(w.t, out), func(l string) bool { return strings.HasPrefix(l, fmt.Sprintf("%d ", after)) })
	})
	return !slices.ContainsFunc(lines(w.t, out), func(l string) bool { return strings.HasPrefix(l, fmt.Sprintf("%d ", sig)) })
}

func TestGroups(t *testing.T) {
	w := newWorld(t)
	leader, _ := w.taking(Start{})
	member, out := w.taking(Start{Group: leader, UID: alice})
	alone := w.there(Start{Args: sleeps()})
	here := w.here(Start{Args: sleeps(), UID: alice})
	root, al, bo := caller(0), caller(alice), caller(bob)
	inside := caller(alice)
	inside.PGID = int32(leader)
	lost := caller(alice)
	lost.PGID = 400 // of window 0
	for _, c := range []struct {
		name string
		who  call.Caller
		nr   call.Nr
		args []int
		want string
	}{
		{"root", root, call.Kill, []int{-leader, 0}, "0"},
		{"one is hers", al, call.Kill, []int{-leader, 10}, "0"},
		{"none is his", bo, call.Kill, []int{-leader, 10}, "EPERM"},
		{"no signal", al, call.Kill, []int{-leader, 99}, "EINVAL"},
		{"no leader", root, call.Kill, []int{-member, 0}, "continue"},
		{"nobody", root, call.Kill, []int{-nobody, 0}, "continue"},
		{"of window 0", root, call.Kill, []int{-500, 0}, "continue"},
		{"her own", inside, call.Kill, []int{0, 12}, "0"},
		{"her own, of window 0", lost, call.Kill, []int{0, 0}, "continue"},
		{"only here", al, call.Kill, []int{-here, 0}, "continue"},
		{"nice of one", root, call.Setpriority, []int{0, member, -3}, "0"},
		{"the best of the group", bo, call.Getpriority, []int{1, leader}, "23"},
		{"nice of the group", root, call.Setpriority, []int{1, leader, 7}, "0"},
		{"the best of the group", bo, call.Getpriority, []int{1, leader}, "13"},
		{"nice of the group, one is hers", al, call.Setpriority, []int{1, leader, 8}, "EPERM"},
		{"which was done", bo, call.Getpriority, []int{0, member}, "12"},
		{"the other not", bo, call.Getpriority, []int{0, leader}, "13"},
		{"nobody's nice", bo, call.Getpriority, []int{1, nobody}, "continue"},
		{"another group", bo, call.Getpriority, []int{1, alone}, "20"},
		{"ioprio of one", root, call.IoprioSet, []int{1, member, 2<<13 | 2}, "0"},
		{"the best of the group", bo, call.IoprioGet, []int{2, leader}, fmt.Sprint(2<<13 | 2)},
		{"ioprio of the group", root, call.IoprioSet, []int{2, leader, 3 << 13}, "0"},
		{"the best of the group", bo, call.IoprioGet, []int{2, leader}, fmt.Sprint(3 << 13)},
	} {
		if got := said(w.call(c.who, c.nr, c.args...)); got != c.want {
			t.Errorf("%s: %s%v: %s, want %s", c.name, c.nr, c.args, got, c.want)
		}
	}
	if n := taken(t, out, unix.SIGUSR1); n != 1 {
		t.Errorf("the member got it %d times", n)
	}
	taken(t, out, unix.SIGUSR2)

	// What is here as well is the caller's kernel's; but not what stands for others.
	must(t, os.WriteFile("/proc/sys/kernel/ns_last_pid", fmt.Append(nil, leader-1), 0))
	stands := w.here(Start{Args: sleeps(), UID: alice})
	if stands != leader {
		t.Fatalf("PID %d, want %d", stands, leader)
	}
	must(t, unix.Setpriority(unix.PRIO_PROCESS, stands, -10))
	if got := said(w.call(al, call.Kill, -leader, 0)); got != "continue" {
		t.Errorf("a group here and there: %s", got)
	}
	if got := said(w.call(bo, call.Kill, -leader, 0)); got != "EPERM" {
		t.Errorf("a group here and there, none is his: %s", got)
	}
	if got := said(w.call(bo, call.Getpriority, 1, leader)); got != "30" {
		t.Errorf("the best here and there: %s", got)
	}
	if got := said(w.call(al, call.Setpriority, 1, leader, 9)); got != "EPERM" {
		t.Errorf("nice of the group here and there: %s", got)
	}
	if n, err := unix.Getpriority(unix.PRIO_PROCESS, stands); n != 11 || err != nil {
		t.Errorf("nice here: %d, %v", 20-n, err)
	}
	w.guard = []int{stands}
	if got := said(w.call(al, call.Kill, -leader, int(unix.SIGKILL))); got != "0" {
		t.Errorf("a group here and there, what is here stands for it: %s", got)
	}
	if got := said(w.call(bo, call.Getpriority, 1, leader)); got != "13" {
		t.Errorf("the best, without what stands here: %s", got)
	}
	if err := unix.Kill(stands, 0); err != nil || state(t, stands) == 'Z' {
		t.Errorf("what stands for others was killed: %v", err)
	}
	w.gone(member)
}

// gone waits until a process of node 2 has ended.
func (w *world) gone(pid int) {
	w.t.Helper()
	eventually(w.t, "the end of a process", func() bool { return said(w.call(caller(0), call.Kill, pid, 0)) == "ESRCH" })
}

// state is that of proc_pid_stat(5), Z if there is no process.
func state(t *testing.T, pid int) byte {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return 'Z'
	}
	must(t, err)
	return b[strings.LastIndexByte(string(b), ')')+2]
}

func TestUsers(t *testing.T) {
	w := newWorld(t)
	one, two := w.there(Start{Args: sleeps(), UID: alice}), w.there(Start{Args: sleeps(), UID: bob})
	here := w.here(Start{Args: sleeps(), UID: alice})
	for _, c := range []struct {
		who  call.Caller
		nr   call.Nr
		args []int
		want string
	}{
		{caller(alice), call.Setpriority, []int{2, alice, 3}, "0"},
		{caller(alice), call.Getpriority, []int{0, one}, "17"},
		{caller(alice), call.Setpriority, []int{2, 0, 4}, "0"}, // her own
		{caller(bob), call.Getpriority, []int{2, alice}, "16"},
		{caller(bob), call.Getpriority, []int{0, two}, "20"},
		{caller(bob), call.Setpriority, []int{2, alice, 19}, "EPERM"},
		{caller(0), call.Setpriority, []int{0, one, -5}, "0"},
		{caller(bob), call.Getpriority, []int{2, alice}, "25"},
		{caller(bob), call.Getpriority, []int{2, 4242}, "continue"},
		{caller(alice), call.IoprioSet, []int{3, alice, 2<<13 | 5}, "0"},
		{caller(alice), call.IoprioGet, []int{3, alice}, fmt.Sprint(2<<13 | 5)},
		// Root is also who serves: those are left out.
		{caller(0), call.Setpriority, []int{2, 0, 0}, "0"},
	} {
		if got := said(w.call(c.who, c.nr, c.args...)); got != c.want {
			t.Errorf("%s%v: %s, want %s", c.nr, c.args, got, c.want)
		}
	}
	if n, err := unix.Getpriority(unix.PRIO_PROCESS, here); n != 16 || err != nil {
		t.Errorf("here: nice %d, %v", 20-n, err)
	}
}

func TestEveryone(t *testing.T) {
	w := newWorld(t)
	a, aOut := w.taking(Start{UID: alice})
	b, bOut := w.taking(Start{UID: bob})
	r, rOut := w.taking(Start{})
	p, pOut := w.taking(Start{})
	must(t, w.peers.do(t.Context(), "Protect", []int{p}, new(bool)))
	here := w.here(Start{Args: sleeps(), UID: alice})
	// Root's part here is done one by one: all but this one are protected.
	all, err := listProcesses()
	must(t, err)
	for _, one := range all {
		if one.pid != here {
			w.guard = append(w.guard, one.pid)
		}
	}
	for _, c := range []struct {
		uid  uint32
		sig  int
		want string
	}{
		{alice, 0, "continue"}, {alice, 99, "continue"}, {alice, int(unix.SIGUSR1), "continue"},
		{4242, int(unix.SIGUSR1), "continue"}, // has nothing
	} {
		// Nobody protected is hers: her kernel does the part here.
		guard := w.guard
		w.guard = nil
		if got := said(w.call(caller(c.uid), call.Kill, -1, c.sig)); got != c.want {
			t.Errorf("kill(-1, %d) of user %d: %s, want %s", c.sig, c.uid, got, c.want)
		}
		w.guard = guard
	}
	if n := taken(t, aOut, unix.SIGUSR1); n != 1 {
		t.Errorf("alice's got it %d times", n)
	}
	if !w.spared(b, bOut, unix.SIGUSR1) || !w.spared(r, rOut, unix.SIGUSR1) {
		t.Error("alice reached others")
	}
	if got := said(w.call(caller(0), call.Kill, -1, 99)); got != "EINVAL" {
		t.Errorf("root: no signal: %s", got)
	}
	if got := said(w.call(caller(0), call.Kill, -1, int(unix.SIGUSR2))); got != "0" {
		t.Errorf("root: %s", got)
	}
	for _, out := range []string{aOut, bOut, rOut} {
		if n := taken(t, out, unix.SIGUSR2); n != 1 {
			t.Errorf("one got it %d times", n)
		}
	}
	if !w.spared(p, pOut, unix.SIGUSR2) {
		t.Error("root reached who is protected")
	}
	eventually(t, "SIGUSR2 here", func() bool { return state(t, here) == 'Z' })

	// SIGCONT goes to all of the session too, whoever they belong to.
	s, sOut := w.taking(Start{Session: true})
	who := caller(alice)
	who.SID = int32(s)
	if got := said(w.call(who, call.Kill, -1, int(unix.SIGCONT))); got != "0" {
		t.Errorf("SIGCONT: %s", got)
	}
	_ = sOut
	if got := said(w.call(caller(0), call.Kill, -1, int(unix.SIGKILL))); got != "0" {
		t.Errorf("root, SIGKILL: %s", got)
	}
	for _, pid := range []int{a, b, r, s} {
		w.gone(pid)
	}
	if got := said(w.call(caller(0), call.Kill, p, 0)); got != "0" {
		t.Errorf("who is protected: %s", got)
	}
}

// The caller itself is left out of its kill(-1), also if that is done one by one.
func TestEveryoneButTheCaller(t *testing.T) {
	w := newWorld(t)
	self := w.here(Start{Args: sleeps(), UID: alice})
	other := w.here(Start{Args: sleeps(), UID: alice})
	stands := w.here(Start{Args: sleeps(), UID: alice})
	w.guard = []int{stands}
	who := caller(alice)
	who.PID, who.TID = int32(self), int32(self)
	if got := said(w.call(who, call.Kill, -1, int(unix.SIGKILL))); got != "0" {
		t.Errorf("kill(-1): %s", got)
	}
	eventually(t, "the end of the other", func() bool { return state(t, other) == 'Z' })
	if state(t, self) == 'Z' || state(t, stands) == 'Z' {
		t.Error("the caller, or what stands for others, was killed")
	}
}

// What is created while all are killed does not get away.
func TestEveryoneForks(t *testing.T) {
	w := newWorld(t)
	out := filepath.Join(w.dir, "forks")
	for range 3 {
		w.there(Start{Args: []string{"sh", "-c", "while :; do sleep 1000 & sleep 0.001; done"}, UID: alice, Output: out})
	}
	eventually(t, "processes", func() bool { return said(w.call(caller(alice), call.Getpriority, 2, alice)) == "20" })
	must(t, w.peers.do(t.Context(), "Protect", []int{}, new(bool)))
	root := caller(0)
	w.guard = w.everybody()
	if got := said(w.call(root, call.Kill, -1, int(unix.SIGKILL))); got != "0" {
		t.Fatalf("kill(-1): %s", got)
	}
	eventually(t, "nobody left", func() bool { return said(w.call(caller(bob), call.Getpriority, 2, alice)) == "continue" })
}

func (w *world) everybody() (pids []int) {
	w.t.Helper()
	all, err := listProcesses()
	must(w.t, err)
	for _, p := range all {
		pids = append(pids, p.pid)
	}
	return pids
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("12 (a) b) S 1 12 12 0"))
	f.Add([]byte(") S 1"))
	f.Add([]byte(""))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseStat(b) })
}

func TestParseStat(t *testing.T) {
	p, ok := parseStat([]byte("12 (a ) S 7 8) R 33 44 55 0"))
	if !ok || p.parent != 33 || p.pgrp != 44 {
		t.Errorf("%+v, %v", p, ok)
	}
}
