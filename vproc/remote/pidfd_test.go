package remote

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/vproc/call"
)

// open opens a pidfd, which must work.
func (w *world) openPidfd(who call.Caller, pid, flags int) *os.File {
	w.t.Helper()
	o := w.call(who, call.PidfdOpen, pid, flags)
	if o.File == nil || !o.CloseOnExec {
		w.t.Fatalf("pidfd_open(%d): %s, close on exec %v", pid, said(o), o.CloseOnExec)
	}
	w.t.Cleanup(func() { _ = o.File.Close() })
	return o.File
}

// send signals by a pidfd.
func (w *world) send(who call.Caller, f *os.File, sig int) string {
	r := w.request(who, call.PidfdSendSignal, 3, sig)
	r.File = f
	return said(w.handle(r))
}

// readable is what poll(2) says, at once or within the patience of the tests.
func readable(t *testing.T, f *os.File, wait time.Duration) bool {
	t.Helper()
	raw, err := f.SyscallConn()
	must(t, err)
	var n int
	var events int16
	must(t, raw.Control(func(fd uintptr) {
		for {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if n, err = unix.Poll(p, int(wait.Milliseconds())); err != unix.EINTR {
				events = p[0].Revents
				return
			}
		}
	}))
	must(t, err)
	if n == 1 && events&unix.POLLIN == 0 {
		t.Errorf("poll tells %#x", events)
	}
	return n == 1
}

func flagsOf(t *testing.T, f *os.File) (flags int) {
	t.Helper()
	raw, err := f.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) { flags, err = unix.FcntlInt(fd, unix.F_GETFL, 0) }))
	must(t, err)
	return flags
}

func TestPidfd(t *testing.T) {
	w := newWorld(t)
	pid, out := w.taking(Start{})
	hers := w.there(Start{Args: sleeps(), UID: alice})
	al, bo, root := caller(alice), caller(bob), caller(0)
	f, g := w.openPidfd(bo, pid, 0), w.openPidfd(al, hers, unix.PIDFD_NONBLOCK)
	if flagsOf(t, f)&unix.O_NONBLOCK != 0 || flagsOf(t, g)&unix.O_NONBLOCK == 0 {
		t.Errorf("flags %#o and %#o", flagsOf(t, f), flagsOf(t, g))
	}
	thread := w.openPidfd(al, hers, unix.PIDFD_THREAD)
	if readable(t, f, 0) || readable(t, g, 0) || readable(t, thread, 0) {
		t.Error("readable before the end")
	}
	for _, c := range []struct {
		name string
		who  call.Caller
		f    *os.File
		sig  int
		want string
	}{
		{"root", root, f, 10, "0"},
		{"root, none", root, f, 0, "0"},
		{"root, no signal", root, f, 99, "EINVAL"},
		{"bob, root's", bo, f, 10, "EPERM"},
		{"alice, hers", al, g, 0, "0"},
		{"alice, her thread", al, thread, 0, "0"},
		{"bob, hers", bo, thread, 0, "EPERM"},
		{"no file", root, nil, 0, "continue"},
		{"another file", root, os.Stderr, 0, "continue"},
	} {
		if got := w.send(c.who, c.f, c.sig); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	if n := taken(t, out, unix.SIGUSR1); n != 1 {
		t.Errorf("it came %d times", n)
	}
	for _, c := range []struct {
		pid, flags int
		want       string
	}{
		{nobody, 0, "ESRCH"}, {pid, 1, "EINVAL"}, {0, 0, "continue"}, {-1, 0, "continue"}, {5 << id.PIDShift, 0, "continue"},
	} {
		if got := said(w.call(root, call.PidfdOpen, c.pid, c.flags)); got != c.want {
			t.Errorf("pidfd_open(%d, %d): %s, want %s", c.pid, c.flags, got, c.want)
		}
	}
	if got := w.send(al, g, 9); got != "0" {
		t.Errorf("SIGKILL: %s", got)
	}
	if !readable(t, g, patience) || !readable(t, thread, patience) {
		t.Error("not readable after the end")
	}
	if readable(t, f, 0) {
		t.Error("another one is readable")
	}
	w.gone(hers)
	if got := w.send(al, g, 0); got != "ESRCH" {
		t.Errorf("after the end: %s", got)
	}
	if got := w.send(al, thread, 0); got != "ESRCH" {
		t.Errorf("after the end, thread: %s", got)
	}
}

// A PID that is given out again is another process.
func TestPidfdOfAnotherProcess(t *testing.T) {
	w := newWorld(t)
	pid := w.there(Start{Args: sleeps()})
	f := w.openPidfd(caller(0), pid, 0)
	e := w.m.files.find(f)
	if e == nil {
		t.Fatal("the file is not known")
	}
	for _, change := range []func(*target){
		func(x *target) { x.number++ },
		func(x *target) { x.boot++ },
		func(x *target) { x.pid = nobody },
	} {
		x := e.target
		change(&x)
		r := w.request(caller(0), call.PidfdSendSignal, 3, 9)
		if reply, _ := w.m.ask(t.Context(), 2, ask{file: &x, r: r}); reply.Errno != unix.ESRCH {
			t.Errorf("%+v: %+v", x, reply)
		}
		places, err := w.m.askWait(t.Context(), 2, []*entry{{target: x, node: 2}, {target: e.target, node: 2}})
		if err != nil || fmt.Sprint(places) != "[0]" {
			t.Errorf("wait for %+v: %v, %v", x, places, err)
		}
	}
	if got := w.send(caller(0), f, 0); got != "0" {
		t.Errorf("the process itself: %s", got)
	}
}

// The end of the node is the end of its processes.
func TestPidfdNodeDies(t *testing.T) {
	w := newWorld(t)
	f := w.openPidfd(caller(0), w.there(Start{Args: sleeps()}), 0)
	w.peers.down.Store(true)
	w.m.NodeDown(2)
	if !readable(t, f, patience) {
		t.Error("not readable when the node is gone")
	}
	w.peers.down.Store(false)
	if got := w.send(caller(0), f, 0); got != "ESRCH" {
		t.Errorf("when the node is there again: %s", got)
	}
	w.m.NodeDown(3) // of which there is nothing
}

// Both daemons are started anew, and pidfds work on.
func TestPidfdOutlivesDaemons(t *testing.T) {
	w := newWorld(t)
	pid, other, third := w.there(Start{Args: sleeps()}), w.there(Start{Args: sleeps()}), w.there(Start{Args: sleeps()})
	f, g := w.openPidfd(caller(0), pid, 0), w.openPidfd(caller(0), other, 0)
	closed := w.openPidfd(caller(0), third, 0)
	w.m.Close()
	if readable(t, f, 0) {
		t.Error("readable because the daemon is gone")
	}
	if got := said(w.callAlone(t, pid)); got != "0" {
		t.Fatalf("kill: %s", got)
	}
	_ = closed.Close()
	w.open()
	if !readable(t, f, patience) || readable(t, g, 0) {
		t.Error("the new daemon does not know what ended meanwhile")
	}
	if n := len(w.m.files.entries); n != 2 {
		t.Errorf("%d files are known", n)
	}
	if got := w.send(caller(0), f, 0); got != "ESRCH" {
		t.Errorf("of the one that ended: %s", got)
	}
	must(t, w.peers.do(t.Context(), "Die", int64(1), new(bool)))
	if got := w.send(caller(0), g, 9); got != "0" {
		t.Errorf("of the other: %s", got)
	}
	if !readable(t, g, patience) {
		t.Error("the other is not readable after its end")
	}
}

// callAlone kills a process of node 2 by a Remote of another directory.
func (w *world) callAlone(t *testing.T, pid int) call.Outcome {
	t.Helper()
	m, err := New(Config{Self: 1, Peers: w.peers, Log: slog.New(slog.DiscardHandler), Dir: filepath.Join(w.dir, "other")})
	must(t, err)
	defer m.Close()
	return m.Handle(t.Context(), w.request(caller(0), call.Kill, pid, 9))
}

// Files that nobody has any more make room, and a user cannot have all.
func TestPidfdLimits(t *testing.T) {
	w := newWorld(t)
	pid := w.there(Start{Args: sleeps()})
	e := w.m.files.find(w.openPidfd(caller(0), pid, 0))
	var open []*os.File
	defer func() {
		for _, f := range open {
			_ = f.Close()
		}
	}()
	for i := range userFiles {
		f, err := w.m.files.add(alice, e.target, 2, false)
		if err != nil {
			t.Fatalf("the file %d: %v", i, err)
		}
		open = append(open, f)
	}
	if got := said(w.call(caller(alice), call.PidfdOpen, pid, 0)); got != "EMFILE" {
		t.Errorf("one more of alice: %s", got)
	}
	if got := said(w.call(caller(bob), call.PidfdOpen, pid, 0)); got != "a file" {
		t.Errorf("one of bob: %s", got)
	}
	_ = open[0].Close()
	if got := said(w.call(caller(alice), call.PidfdOpen, pid, 0)); got != "a file" {
		t.Errorf("alice, after she closed one: %s", got)
	}
	for _, f := range open[1:] {
		_ = f.Close()
	}
	open = nil
	w.m.files.sweep()
	names, err := os.ReadDir(w.m.files.dir)
	if err != nil || len(names) > 3 {
		t.Errorf("%d files are left: %v", len(names), err)
	}
	// A failure between the nodes does not end anything.
	f := w.openPidfd(caller(0), pid, 0)
	calls := make(chan struct{}, 100)
	w.peers.setHook(func(method string) error {
		if method == methodWait {
			select {
			case calls <- struct{}{}:
			default:
			}
		}
		return errno.New(errno.Unavailable, "wait", 2, "the connection is lost")
	})
	w.m.files.again(2)
	<-calls
	<-calls
	if readable(t, f, 0) {
		t.Error("a failure between the nodes ended a process")
	}
}

// A file is ours by its inode, not by what it is called.
func TestPidfdForged(t *testing.T) {
	w := newWorld(t)
	pid := w.there(Start{Args: sleeps()})
	e := w.m.files.find(w.openPidfd(caller(0), pid, 0))
	path := filepath.Join(w.dir, e.name())
	must(t, unix.Mkfifo(path, 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer func() { _ = f.Close() }()
	if w.m.files.find(f) != nil {
		t.Error("a FIFO of another directory is taken for a pidfd")
	}
	inside := filepath.Join(w.m.files.dir, e.name()+"x")
	must(t, unix.Mkfifo(inside, 0o600))
	g, err := os.OpenFile(inside, os.O_RDWR, 0)
	must(t, err)
	defer func() { _ = g.Close() }()
	if w.m.files.find(g) != nil {
		t.Error("a FIFO with another name is taken for a pidfd")
	}
}

func TestName(t *testing.T) {
	for _, e := range []entry{
		{user: 0, target: target{pid: 70000, boot: 1<<64 - 1, number: 5}, serial: 9, node: 2},
		{user: 0, target: target{pid: 70000, boot: 1<<64 - 1, number: 5}, serial: 9, node: 127},
		{ended: true, user: 1<<32 - 2, target: target{pid: 1, thread: true, boot: 0, number: 1 << 63}, serial: 1 << 63},
	} {
		if got, ok := parseName(e.name()); !ok || *got != e {
			t.Errorf("%s: %+v, %v, want %+v", e.name(), got, ok, e)
		}
	}
	for _, s := range []string{"", "lock", "w", "w0.1.0.0.0", "w0.1.0.0.0.0 ", "w00.1.0.0.0.0", "x0.1.0.0.0.0", "w0.0.0.0.0.0", "w0.-1.0.0.0.0", "w0.1.2.0.0.0", "w0.11170.0.0.0.0.2", "w0.11170.0.0.0.0.0", "w0.11170.0.0.0.0.80", "w0.11170.0.0.0.0.03", "w0.11170.0.0.0.0.3.", "w0.11170.0.0.0.0.3.3"} {
		if e, ok := parseName(s); ok {
			t.Errorf("%q is %+v", s, e)
		}
	}
}

func FuzzName(f *testing.F) {
	f.Add("w0.1.0.0.0.0")
	f.Add("e7.ffff.1.1.2.3")
	f.Add("w0.11170.0.1.2.3.7f")
	f.Fuzz(func(t *testing.T, s string) {
		if e, ok := parseName(s); ok && e.name() != s {
			t.Errorf("%q is named %q", s, e.name())
		}
	})
}
