package remote

import (
	"encoding/binary"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/vproc/call"
)

const (
	alice  = 23401
	bob    = 65534
	nobody = 2<<id.PIDShift + 32000 // a PID of node 2 that no process has
)

// The kernel that owns a process judges; what is not there or is here is left to
// the caller's.
func TestProcess(t *testing.T) {
	w := newWorld(t)
	roots, hers := w.there(Start{Args: sleeps(), Session: true}), w.there(Start{Args: sleeps(), UID: alice, Session: true})
	local := w.here(Start{Args: sleeps(), UID: alice})
	if id.PID(local).Home() != 1 {
		t.Fatalf("a process of node 1 has PID %d", local)
	}
	gone := 5<<id.PIDShift + 400 // of a node that is not there
	root, al, bo := caller(0), caller(alice), caller(bob)
	weak := caller(0)
	weak.Caps = 0
	setuid := caller(bob) // real bob, effective alice
	setuid.EUID = alice
	for _, c := range []struct {
		name string
		who  call.Caller
		nr   call.Nr
		args []int
		want string
	}{
		{"root, his", root, call.Kill, []int{roots, 0}, "0"},
		{"root, hers", root, call.Kill, []int{hers, 0}, "0"},
		{"root without capabilities, hers", weak, call.Kill, []int{hers, 0}, "EPERM"},
		{"alice, root's", al, call.Kill, []int{roots, 0}, "EPERM"},
		{"alice, hers", al, call.Kill, []int{hers, 0}, "0"},
		{"bob, hers", bo, call.Kill, []int{hers, 0}, "EPERM"},
		{"effective alice, hers", setuid, call.Kill, []int{hers, 0}, "0"},
		{"no signal", al, call.Kill, []int{hers, 99}, "EINVAL"},
		{"nobody", root, call.Kill, []int{nobody, 99}, "ESRCH"},
		{"here", root, call.Kill, []int{local, 0}, "continue"},
		{"PID 1", root, call.Kill, []int{1, 0}, "continue"},
		{"a node that is not there", root, call.Kill, []int{gone, 0}, "continue"},
		{"not a PID", root, call.Kill, []int{1 << 30, 0}, "continue"},
		{"the lowest", root, call.Kill, []int{-1 << 31, 0}, "continue"},
		{"tgkill", al, call.Tgkill, []int{hers, hers, 0}, "0"},
		{"tgkill, two processes", root, call.Tgkill, []int{hers, roots, 0}, "ESRCH"},
		{"tkill", bo, call.Tkill, []int{hers, 0}, "EPERM"},
		{"getpgid", bo, call.Getpgid, []int{hers}, fmt.Sprint(hers)},
		{"getsid", bo, call.Getsid, []int{hers}, fmt.Sprint(hers)},
		{"getsid, nobody", bo, call.Getsid, []int{nobody}, "ESRCH"},
		{"setpgid", root, call.Setpgid, []int{hers, hers}, "continue"},
		{"getpriority", bo, call.Getpriority, []int{0, hers}, "20"},
		{"setpriority, bob", bo, call.Setpriority, []int{0, hers, 5}, "EPERM"},
		{"setpriority, alice", al, call.Setpriority, []int{0, hers, 5}, "0"},
		{"setpriority, alice, back", al, call.Setpriority, []int{0, hers, 4}, "EACCES"},
		{"getpriority again", bo, call.Getpriority, []int{0, hers}, "15"},
		{"which", bo, call.Getpriority, []int{3, hers}, "continue"},
		{"ioprio_set", al, call.IoprioSet, []int{1, hers, 2<<13 | 6}, "0"},
		{"ioprio_set, bob", bo, call.IoprioSet, []int{1, hers, 2<<13 | 6}, "EPERM"},
		{"ioprio_get", bo, call.IoprioGet, []int{1, hers}, fmt.Sprint(2<<13 | 6)},
		{"sched_getscheduler", bo, call.SchedGetscheduler, []int{hers}, "0"},
		{"signal, by a file that is none", bo, call.PidfdSendSignal, []int{0, 0}, "continue"},
	} {
		if got := said(w.call(c.who, c.nr, c.args...)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	w.peers.down.Store(true)
	if got := said(w.call(root, call.Kill, hers, 0)); got != "continue" {
		t.Errorf("a node that is down: %s", got)
	}
	stands := w.stands(2<<id.PIDShift + 7) // for a process of node 2
	if got := said(w.call(root, call.Kill, stands, 9)); got != "ESRCH" {
		t.Errorf("a process of a node that is down, for which something stands here: %s", got)
	}
}

// What calls read and write goes both ways.
func TestMemory(t *testing.T) {
	w := newWorld(t)
	pid := w.there(Start{Args: sleeps(), UID: alice})
	who := caller(alice)
	u32, u64 := binary.NativeEndian.AppendUint32, binary.NativeEndian.AppendUint64

	r := w.request(who, call.Prlimit64, pid, unix.RLIMIT_NOFILE, 1, 1)
	r.In, r.OutLen = u64(u64(nil, 100), 200), 16
	first := w.handle(r)
	r = w.request(who, call.Prlimit64, pid, unix.RLIMIT_NOFILE, 0, 1)
	r.OutLen = 16
	if o := w.handle(r); said(first) != "0" || len(first.Reply.Out) != 16 || said(o) != "0" || string(o.Reply.Out) != string(u64(u64(nil, 100), 200)) {
		t.Errorf("prlimit: %s %x, then %s %x", said(first), first.Reply.Out, said(o), o.Reply.Out)
	}
	r = w.request(who, call.SchedGetaffinity, pid, 1024, 1)
	r.OutLen = 1024
	o := w.handle(r)
	if o.Reply.Ret < 8 || len(o.Reply.Out) != int(o.Reply.Ret) || o.Reply.Out[0] == 0 {
		t.Errorf("sched_getaffinity: %s, %x", said(o), o.Reply.Out)
	}
	for _, size := range []int{0, 1, 9, 1031, 4097, 1<<31 - 1} {
		r = w.request(who, call.SchedGetaffinity, pid, size, 1)
		r.OutLen = 1024
		if o := w.handle(r); said(o) != "EINVAL" {
			t.Errorf("sched_getaffinity with %d bytes: %s", size, said(o))
		}
	}
	r = w.request(who, call.SchedGetaffinity, pid, 1<<20, 1)
	r.OutLen = 1024
	if o := w.handle(r); o.Reply.Ret < 8 {
		t.Errorf("sched_getaffinity with 1 MiB: %s", said(o))
	}
	r = w.request(who, call.SchedSetaffinity, pid, 8, 1)
	r.In = u64(nil, 1)
	if o := w.handle(r); said(o) != "0" {
		t.Errorf("sched_setaffinity: %s", said(o))
	}
	r = w.request(who, call.SchedSetaffinity, pid, 1<<20, 1)
	r.In = make([]byte, 1024)
	if o := w.handle(r); said(o) != "EINVAL" { // no processor
		t.Errorf("sched_setaffinity to nothing: %s", said(o))
	}
	r = w.request(who, call.SchedGetattr, pid, 1, 48, 0)
	r.OutLen = 48
	if o := w.handle(r); said(o) != "0" || len(o.Reply.Out) != 48 || binary.NativeEndian.Uint32(o.Reply.Out) < 48 {
		t.Errorf("sched_getattr: %s, %x", said(o), o.Reply.Out)
	}
	for _, size := range []int{4, 5000} {
		r = w.request(who, call.SchedGetattr, pid, 1, size, 0)
		r.OutLen = uint32(min(size, 4096))
		if o := w.handle(r); said(o) != "EINVAL" {
			t.Errorf("sched_getattr with %d bytes: %s", size, said(o))
		}
	}
	attr := func(size uint32) []byte { return append(u64(u32(u32(nil, size), 3), 0), make([]byte, 32)...) } // SCHED_BATCH
	for _, c := range []struct {
		in   []byte
		want string
		out  int
	}{
		{attr(48), "0", 0}, {attr(4), "E2BIG", 4}, {attr(1 << 20), "E2BIG", 4}, {attr(4096)[:4], "0", 0}, {nil, "0", 0},
	} {
		r = w.request(who, call.SchedSetattr, pid, 1, 0)
		r.In, r.OutLen = c.in, 4
		if o := w.handle(r); said(o) != c.want || len(o.Reply.Out) != c.out {
			t.Errorf("sched_setattr %x: %s, %d bytes", c.in, said(o), len(o.Reply.Out))
		}
	}
	if o := w.call(who, call.SchedSetattr, pid, 0, 0); said(o) != "EINVAL" { // a null pointer
		t.Errorf("sched_setattr without attributes: %s", said(o))
	}
	r = w.request(who, call.SchedRrGetInterval, pid, 1)
	r.OutLen = 16
	if o := w.handle(r); said(o) != "0" || len(o.Reply.Out) != 16 {
		t.Errorf("sched_rr_get_interval: %s, %x", said(o), o.Reply.Out)
	}
	r = w.request(who, call.SchedSetscheduler, pid, 3, 1)
	r.In = u32(nil, 0)
	if o := w.handle(r); said(o) != "0" {
		t.Errorf("sched_setscheduler: %s", said(o))
	}
	r = w.request(who, call.SchedGetparam, pid, 1)
	r.OutLen = 4
	if o := w.handle(r); said(o) != "0" || len(o.Reply.Out) != 4 {
		t.Errorf("sched_getparam: %s, %x", said(o), o.Reply.Out)
	}
}

// The target sees who sent a signal, and what.
func TestSender(t *testing.T) {
	w := newWorld(t)
	pid, out := w.taking(Start{Session: true})
	who := caller(0)
	who.UID = 0
	other := caller(0)
	other.PID, other.UID = who.PID+1, alice // a program of alice with all capabilities
	info := make([]byte, call.SiginfoSize)
	put := func(at int, v int32) { binary.NativeEndian.PutUint32(info[at:], uint32(v)) }
	put(0, 40)
	put(8, -1) // SI_QUEUE
	put(16, 4711)
	put(20, 815)
	put(24, -7)
	queue := w.request(who, call.RtSigqueueinfo, pid, 40, 1)
	queue.In = info
	forged := w.request(who, call.RtSigqueueinfo, pid, 40, 1)
	forged.In = append([]byte(nil), info...)
	copy(forged.In[8:], []byte{0, 0, 0, 0}) // SI_USER
	old := caller(0)
	old.PID = 700 // of window 0: it says nothing there
	for i, c := range []struct {
		r    *call.Request
		want string
		line string
	}{
		{w.request(who, call.Kill, pid, 10), "0", fmt.Sprintf("10 0 %d 0 0", who.PID)},
		{w.request(other, call.Kill, pid, 10), "0", fmt.Sprintf("10 0 %d %d 0", other.PID, alice)},
		{w.request(who, call.Tkill, pid, 12), "0", fmt.Sprintf("12 -6 %d 0 0", who.PID)},
		{queue, "0", "40 -1 4711 815 -7"},
		{forged, "EPERM", ""},
		{w.request(old, call.Kill, pid, 10), "0", "10 0 - 0 0"},
	} {
		before := len(lines(t, out))
		if got := said(w.handle(c.r)); got != c.want {
			t.Fatalf("%d: %s, want %s", i, got, c.want)
		}
		if c.line == "" {
			continue
		}
		eventually(t, "the signal", func() bool { return len(lines(t, out)) > before })
		got := lines(t, out)[before]
		var signo, code, from, uid, value int
		if _, err := fmt.Sscan(got, &signo, &code, &from, &uid, &value); err != nil {
			t.Fatal(err)
		}
		if c.r.Caller.PID == old.PID {
			if from == int(old.PID) {
				t.Errorf("%d: %q has a PID that means another process there", i, got)
			}
			got = fmt.Sprintf("%d %d - %d %d", signo, code, uid, value)
		}
		if got != c.line {
			t.Errorf("%d: %q, want %q", i, got, c.line)
		}
	}
}

// Anybody may continue the processes of the own session.
func TestContinueInSession(t *testing.T) {
	w := newWorld(t)
	pid := w.there(Start{Args: sleeps(), Session: true})
	who := caller(alice)
	for _, c := range []struct {
		sid  int32
		sig  unix.Signal
		args int
		want string
	}{
		{int32(pid), unix.SIGCONT, pid, "0"},
		{int32(pid), unix.SIGTERM, pid, "EPERM"},
		{int32(pid) + 1, unix.SIGCONT, pid, "EPERM"},
		{0, unix.SIGCONT, pid, "EPERM"},
		{int32(pid), unix.SIGCONT, -pid, "0"},
		{int32(pid) + 1, unix.SIGCONT, -pid, "EPERM"},
	} {
		who.SID = c.sid
		if got := said(w.call(who, call.Kill, c.args, int(c.sig))); got != c.want {
			t.Errorf("%v to %d from session %d: %s, want %s", c.sig, c.args, c.sid, got, c.want)
		}
	}
}

// Calls that do not go across nodes say what a kernel says.
func TestRefused(t *testing.T) {
	w := newWorld(t)
	there, here := w.there(Start{Args: sleeps()}), w.here(Start{Args: sleeps()})
	gone := 5<<id.PIDShift + 400
	for _, c := range []struct {
		nr   call.Nr
		args []int
		want string
	}{
		{call.Ptrace, []int{ptraceTraceme, there}, "continue"},
		{call.Ptrace, []int{ptraceAttach, there}, "EPERM"},
		{call.Ptrace, []int{ptraceSeize, there}, "EPERM"},
		{call.Ptrace, []int{ptraceAttach, nobody}, "ESRCH"},
		{call.Ptrace, []int{7, there}, "ESRCH"},
		{call.Ptrace, []int{ptraceAttach, here}, "continue"},
		{call.ProcessVMReadv, []int{there}, "EPERM"},
		{call.ProcessVMReadv, []int{nobody}, "ESRCH"},
		{call.ProcessVMWritev, []int{there}, "EPERM"},
		{call.Kcmp, []int{there, here}, "EPERM"},
		{call.Kcmp, []int{here, there}, "EPERM"},
		{call.Kcmp, []int{there, there}, "EPERM"},
		{call.Kcmp, []int{here, nobody}, "ESRCH"},
		{call.Kcmp, []int{there, 1<<id.PIDShift + 32000}, "ESRCH"},
		{call.Kcmp, []int{here, here}, "continue"},
		{call.PerfEventOpen, []int{1, there}, "EACCES"},
		{call.PerfEventOpen, []int{1, nobody}, "ESRCH"},
		{call.MovePages, []int{there}, "EPERM"},
		{call.MigratePages, []int{there}, "EPERM"},
		{call.GetRobustList, []int{there}, "EPERM"},
		{call.GetRobustList, []int{gone}, "continue"},
	} {
		if got := said(w.call(caller(0), c.nr, c.args...)); got != c.want {
			t.Errorf("%s%v: %s, want %s", c.nr, c.args, got, c.want)
		}
	}
}

// Close waits for the calls under way, and what comes later fails.
func TestClose(t *testing.T) {
	w := newWorld(t)
	pid := w.there(Start{Args: sleeps()})
	here := w.here(Start{Args: sleeps()})
	done := make(chan string)
	started := make(chan struct{}, 1)
	w.peers.setHook(func(string) error {
		select {
		case started <- struct{}{}:
		default:
		}
		return errno.New(errno.Unavailable, "call", 2, "the connection is lost")
	})
	go func() { done <- said(w.call(caller(0), call.Kill, pid, 0)) }()
	<-started
	fd := w.m.openHere(w.request(caller(0), call.PidfdOpen, here))
	waited := make(chan error)
	go func() {
		_, err := w.m.ServeWait(t.Context(), 3, fd.Out)
		waited <- err
	}()
	eventually(t, "the wait", func() bool {
		w.m.mu.Lock()
		defer w.m.mu.Unlock()
		return w.m.waits[3] == 1
	})
	w.m.Close()
	if got := <-done; got != "ETIMEDOUT" {
		t.Errorf("a call under way: %s", got)
	}
	if err := <-waited; err != nil {
		t.Errorf("a wait under way: %v", err)
	}
	if got := said(w.call(caller(0), call.Kill, pid, 0)); got != "ETIMEDOUT" {
		t.Errorf("a call after it: %s", got)
	}
	r := w.request(caller(0), call.Kill, here, 9)
	if _, err := w.m.ServeCall(t.Context(), 1, ask{r: r}.encode()); !errno.Is(err, errno.Unavailable) {
		t.Errorf("a call of another node: %v", err)
	}
	if _, err := w.m.ServeWait(t.Context(), 3, fd.Out); !errno.Is(err, errno.Unavailable) {
		t.Errorf("a wait: %v", err)
	}
	w.open()
}
