package gate

import (
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/vproc/call"
)

// handlerFunc is a Handler.
type handlerFunc func(ctx context.Context, r *call.Request) call.Outcome

func (f handlerFunc) Handle(ctx context.Context, r *call.Request) call.Outcome { return f(ctx, r) }

// value is an outcome.
func value(v int64) call.Outcome { return call.Outcome{Reply: call.Reply{Ret: v}} }

func TestAnswers(t *testing.T) {
	p := caller(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	g := open(t, handlerFunc(func(_ context.Context, q *call.Request) call.Outcome {
		switch q.Nr {
		case call.Getsid:
			return value(int64(q.Int(0)) * 2)
		case call.ClusternodeNum:
			return value(7)
		case call.Getpgid:
			return call.Fail(unix.EXDEV)
		case call.Kill:
			return call.Outcome{Continue: true}
		case call.PidfdOpen:
			return call.Outcome{File: r, CloseOnExec: true}
		}
		return call.Fail(unix.EBADMSG)
	}), p.listener)
	pid := foreignPID(9)
	for _, c := range []struct {
		name string
		nr   uint64
		args [6]uint64
		ret  int64
		e    syscall.Errno
	}{
		{"value", unix.SYS_GETSID, [6]uint64{pid}, int64(pid) * 2, 0},
		{"errno", unix.SYS_GETPGID, [6]uint64{pid}, -1, unix.EXDEV},
		{"continue", unix.SYS_KILL, [6]uint64{pid, 0}, -1, unix.ESRCH},
		{"a call of the cluster", call.ClusterBase + 1, [6]uint64{}, 7, 0},
		{"a number nobody has", call.ClusterBase + 99, [6]uint64{}, -1, unix.ENOSYS},
		{"x32", x32 | unix.SYS_GETPID, [6]uint64{}, -1, unix.ENOSYS},
		{"local", unix.SYS_KILL, [6]uint64{uint64(p.cmd.Process.Pid), 0}, 0, 0},
		{"other", unix.SYS_PTRACE, [6]uint64{16, pid}, -1, unix.EBADMSG},
		{"pidfd_send_signal: no file", unix.SYS_PIDFD_SEND_SIGNAL, [6]uint64{999, 0}, -1, unix.EBADF},
	} {
		if got := p.call(c.nr, c.args); got.Ret != c.ret || got.Errno != c.e {
			t.Errorf("%s: %d, %v, want %d, %v", c.name, got.Ret, got.Errno, c.ret, c.e)
		}
	}
	got := p.call(unix.SYS_PIDFD_OPEN, [6]uint64{pid})
	if got.Errno != 0 || got.Ret < 3 {
		t.Fatalf("file: %d, %v", got.Ret, got.Errno)
	}
	if f := p.call(unix.SYS_FCNTL, [6]uint64{uint64(got.Ret), unix.F_GETFD}); f.Ret != unix.FD_CLOEXEC {
		t.Errorf("flags of the file: %d, %v", f.Ret, f.Errno)
	}
	if _, err := w.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	read := p.call(unix.SYS_READ, [6]uint64{uint64(got.Ret), 0, 5}, memArg{1, make([]byte, 5)})
	if read.Ret != 5 || string(read.Mem[0]) != "hello" {
		t.Errorf("read: %d, %v, %q", read.Ret, read.Errno, read.Mem)
	}
	allFree(t, g)
	if _, err := r.Stat(); err == nil {
		t.Error("the gate has not closed the file")
	}
}

// allFree waits until no call is handled any more.
func allFree(t testing.TB, g *Gate) {
	t.Helper()
	eventually(t, "free slots", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(g.journal.free) == slots-len(g.listeners) && len(g.users) == 0
	})
}

// A caller that has no room for a file is told so.
func TestFileRefused(t *testing.T) {
	p := caller(t)
	open(t, handlerFunc(func(context.Context, *call.Request) call.Outcome {
		f, err := os.Open("/dev/null")
		if err != nil {
			return call.Fail(unix.EIO)
		}
		return call.Outcome{File: f}
	}), p.listener)
	limit := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, 5), 5)
	if r := p.call(unix.SYS_PRLIMIT64, [6]uint64{0, unix.RLIMIT_NOFILE}, memArg{2, limit}); r.Errno != 0 {
		t.Fatal(r.Errno)
	}
	last := result{}
	for range 10 {
		if last = p.call(unix.SYS_PIDFD_OPEN, [6]uint64{foreignPID(1)}); last.Errno != 0 {
			break
		}
	}
	if last.Errno != unix.EMFILE {
		t.Errorf("%d, %v", last.Ret, last.Errno)
	}
}

// recorder keeps requests.
type recorder struct {
	mu       sync.Mutex
	requests []call.Request
	answer   func(*call.Request) call.Outcome
}

func (r *recorder) Handle(_ context.Context, q *call.Request) call.Outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, *q)
	if r.answer == nil {
		return value(0)
	}
	return r.answer(q)
}

func (r *recorder) last(t testing.TB) call.Request {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.requests) == 0 {
		t.Fatal("the handler was not asked")
	}
	return r.requests[len(r.requests)-1]
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.requests)
}

func TestIdentity(t *testing.T) {
	p := caller(t, "setsid")
	h := &recorder{}
	open(t, h, p.listener)
	r := p.call(unix.SYS_KILL, [6]uint64{foreignPID(3), 9})
	c := h.last(t).Caller
	pid := int32(r.PID)
	if c.Node != testNode() || c.PID != pid || c.TID != int32(r.TID) || c.PGID != pid || c.SID != pid || c.UID != 0 || c.Caps == 0 {
		t.Errorf("%+v", c)
	}
	first := h.last(t).Origin
	if first.Node != testNode() || first.Incarnation == 0 || first.Seq == 0 {
		t.Errorf("origin %+v", first)
	}
	wait(t, p.order(order{Become: &[2]int{4242, 4343}}))
	p.call(unix.SYS_KILL, [6]uint64{foreignPID(3), 9})
	c = h.last(t).Caller
	c.TID = 0
	want := call.Caller{
		Node: testNode(), PID: pid, PGID: pid, SID: pid, UID: 4242, EUID: 4242, SUID: 4242, FSUID: 4242,
		GID: 4343, EGID: 4343, SGID: 4343, FSGID: 4343, Groups: c.Groups,
	}
	if !slices.Equal(c.Groups, []uint32{77, 4343}) || !equalCaller(c, want) {
		t.Errorf("%+v, want %+v", c, want)
	}
	if o := h.last(t).Origin; o.Incarnation != first.Incarnation || o.Seq <= first.Seq {
		t.Errorf("origin %+v after %+v", o, first)
	}
}

func equalCaller(a, b call.Caller) bool {
	a.Groups, b.Groups = nil, nil
	x := call.Request{Nr: call.Kill, Caller: a}
	y := call.Request{Nr: call.Kill, Caller: b}
	return slices.Equal(x.Append(nil), y.Append(nil))
}

// Who is root of a user namespace of its own has no capability in the node's.
func TestUserNamespace(t *testing.T) {
	p := caller(t, "unshare", "-Ur")
	h := &recorder{}
	open(t, h, p.listener)
	if r := p.call(unix.SYS_KILL, [6]uint64{foreignPID(3), 9}); r.Errno != 0 {
		t.Fatal(r.Errno)
	}
	if c := h.last(t).Caller; c.UID != 0 || c.Caps != 0 {
		t.Errorf("%+v", c)
	}
}

// In a PID namespace below, numbers mean what they mean there.
func TestNestedNamespace(t *testing.T) {
	for name, quick := range map[string]func(*call.Request) (call.Outcome, bool){
		"handler": nil,
		"quick": func(r *call.Request) (call.Outcome, bool) {
			t.Errorf("asked about %s %x", r.Nr, r.Args)
			return call.Outcome{}, false
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := &recorder{}
			p := caller(t, "unshare", "-Upf")
			openWith(t, Config{Handler: h, Quick: quick, Kept: map[uint64]*os.File{1: p.listener}}, limits{userCalls, callTime, lateTime})
			if r := p.call(unix.SYS_KILL, [6]uint64{1, 0}); r.Errno != 0 || r.PID != 1 {
				t.Errorf("kill(1): %v, as process %d", r.Errno, r.PID)
			}
			if r := p.call(unix.SYS_GETSID, [6]uint64{foreignPID(1)}); r.Errno != unix.ESRCH {
				t.Errorf("getsid: %d, %v", r.Ret, r.Errno)
			}
			if r := p.call(unix.SYS_RT_SIGQUEUEINFO, [6]uint64{foreignPID(1), 9}, memArg{2, make([]byte, 128)}); r.Errno == 0 {
				t.Error("rt_sigqueueinfo found somebody")
			}
			if r := p.call(call.ClusterBase+1, [6]uint64{}); r.Errno != unix.ENOSYS {
				t.Errorf("clusternode_num: %d, %v", r.Ret, r.Errno)
			}
			if n := h.count(); n != 0 {
				t.Errorf("the handler was asked %d times", n)
			}
		})
	}
}

func TestPidfdSendSignal(t *testing.T) {
	p := caller(t)
	h := &recorder{answer: func(q *call.Request) call.Outcome {
		if q.File == nil {
			return call.Fail(unix.EDOM)
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(q.File.Fd()), &st); err != nil {
			return call.Fail(unix.EIO)
		}
		return value(int64(st.Ino & 0xffff))
	}}
	open(t, h, p.listener)
	own := p.call(unix.SYS_PIDFD_OPEN, [6]uint64{uint64(p.cmd.Process.Pid)})
	if own.Errno != 0 {
		t.Fatal(own.Errno)
	}
	if r := p.call(unix.SYS_PIDFD_SEND_SIGNAL, [6]uint64{uint64(own.Ret), 0}); r.Errno != 0 || h.count() != 0 {
		t.Errorf("a pidfd: %v, the handler was asked %d times", r.Errno, h.count())
	}
	dir := p.call(unix.SYS_OPENAT, [6]uint64{0, 0, unix.O_DIRECTORY}, memArg{1, []byte("/proc/self\x00")})
	if r := p.call(unix.SYS_PIDFD_SEND_SIGNAL, [6]uint64{uint64(dir.Ret), 0}); r.Errno != 0 || h.count() != 0 {
		t.Errorf("a directory of proc: %v, the handler was asked %d times", r.Errno, h.count())
	}
	null := p.call(unix.SYS_OPENAT, [6]uint64{0, 0, 0}, memArg{1, []byte("/dev/null\x00")})
	var st unix.Stat_t
	if err := unix.Stat("/dev/null", &st); err != nil {
		t.Fatal(err)
	}
	if r := p.call(unix.SYS_PIDFD_SEND_SIGNAL, [6]uint64{uint64(null.Ret), 0}); r.Errno != 0 || r.Ret != int64(st.Ino&0xffff) {
		t.Errorf("another file: %d, %v", r.Ret, r.Errno)
	}
	if r := p.call(unix.SYS_PIDFD_SEND_SIGNAL, [6]uint64{1<<64 - 1, 0}); r.Errno != unix.EBADF {
		t.Errorf("no file: %v", r.Errno)
	}
}

// The end of the last process that has the filter ends its receiver, and a killed
// caller's call is not left over.
func TestGone(t *testing.T) {
	p := caller(t)
	gone := make(chan uint64, 1)
	asked := make(chan struct{})
	release := make(chan struct{})
	g := openWith(t, Config{Gone: func(n uint64) { gone <- n }, Handler: handlerFunc(func(context.Context, *call.Request) call.Outcome {
		close(asked)
		<-release
		return value(0)
	}), Kept: map[uint64]*os.File{5: p.listener}}, limits{userCalls, callTime, lateTime})
	p.order(order{Nr: unix.SYS_KILL, Args: [6]uint64{foreignPID(1), 9}})
	<-asked
	p.kill()
	close(release)
	select {
	case n := <-gone:
		if n != 5 {
			t.Errorf("listener %d is gone", n)
		}
	case <-time.After(patience):
		t.Fatal("the receiver does not end")
	}
	allFree(t, g)
	q := caller(t)
	gone2 := q.listener
	if err := g.Add(gone2, 5); err != nil {
		t.Fatal(err)
	}
	if err := g.Add(mustOpen(t, "/dev/null"), 6); err == nil {
		t.Error("what is no listener was added")
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if err := g.Add(mustOpen(t, "/dev/null"), 7); err == nil {
		t.Error("added to a closed gate")
	}
}

func mustOpen(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// What Quick decides the Handler does not see. Of what has memory it decides only what
// does without.
func TestQuick(t *testing.T) {
	p := caller(t)
	h := &recorder{}
	g := openWith(t, Config{Handler: h, Kept: map[uint64]*os.File{1: p.listener}, Quick: func(r *call.Request) (call.Outcome, bool) {
		switch {
		case r.Nr == call.PidfdSendSignal || r.Nr == call.SsiInfo || r.OutLen != 0 || r.In != nil:
			t.Errorf("asked about %s", r.Nr)
		case r.Nr == call.RtSigqueueinfo:
			return value(3), true
		case r.Nr == call.Prlimit64 && r.Args[1] == unix.RLIMIT_NOFILE:
			return call.Outcome{Continue: true}, true
		case r.Nr == call.Prlimit64:
			return call.Fail(unix.EDOM), true
		case r.Nr == call.Kill && r.Int(0) == 0:
			return value(int64(r.Caller.PGID)), true
		case r.Nr == call.Kill:
			return call.Outcome{Continue: true}, true
		case r.Nr == call.PidfdOpen:
			return call.Outcome{File: mustOpen(t, "/dev/null")}, true
		case r.Nr == call.Getsid && r.Caller.TID > 0 && r.Origin.Seq > 0:
			return value(8), true
		}
		return call.Outcome{}, false
	}}, limits{userCalls, callTime, lateTime})
	pid := foreignPID(1)
	if r := p.call(unix.SYS_GETSID, [6]uint64{pid}); r.Ret != 8 {
		t.Errorf("getsid: %d, %v", r.Ret, r.Errno)
	}
	if r := p.call(unix.SYS_KILL, [6]uint64{pid, 0}); r.Errno != unix.ESRCH {
		t.Errorf("kill: %d, %v", r.Ret, r.Errno)
	}
	if r := p.call(unix.SYS_KILL, [6]uint64{0, 0}); int(r.Ret) != unix.Getpgrp() {
		t.Errorf("kill of the own group %d: %d, %v", unix.Getpgrp(), r.Ret, r.Errno)
	}
	if r := p.call(unix.SYS_PIDFD_OPEN, [6]uint64{pid}); r.Ret < 3 {
		t.Errorf("pidfd_open: %d, %v", r.Ret, r.Errno)
	}
	own := uint64(p.cmd.Process.Pid)
	if r := p.call(unix.SYS_PRLIMIT64, [6]uint64{own, unix.RLIMIT_NOFILE}, memArg{3, make([]byte, 16)}); r.Ret != 0 || r.Mem[0][0] == 0 && r.Mem[0][1] == 0 {
		t.Errorf("prlimit64: %d, %v", r.Ret, r.Errno)
	}
	if r := p.call(unix.SYS_PRLIMIT64, [6]uint64{own, unix.RLIMIT_CORE, 4096}); r.Errno != unix.EDOM { // a pointer to nothing
		t.Errorf("prlimit64: %d, %v", r.Ret, r.Errno)
	}
	if n := h.count(); n != 0 {
		t.Errorf("the handler was asked %d times", n)
	}
	p.call(call.ClusterBase, [6]uint64{0, 64}, memArg{0, make([]byte, 64)})
	p.call(unix.SYS_GETPGID, [6]uint64{pid})
	p.call(unix.SYS_RT_SIGQUEUEINFO, [6]uint64{pid, 9}, memArg{2, make([]byte, 128)})
	if n := h.count(); n != 3 {
		t.Errorf("the handler was asked %d times", n)
	}
	allFree(t, g)
}

// Whether a caller is in a namespace below is known anew when its number is another
// thread's.
func TestKnown(t *testing.T) {
	ids, err := newIdentities(testNode())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ids.close() }()
	k := &known{ids: ids}
	defer k.close()
	start := func(flags uintptr) (tid uint32, end func()) {
		cmd := exec.Command("sleep", "1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: unix.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Skipf("PID namespaces: %v", err)
		}
		return uint32(cmd.Process.Pid), func() { _, _ = cmd.Process.Kill(), cmd.Wait() }
	}
	check := func(tid uint32, want bool) {
		t.Helper()
		for range 2 { // found out, and remembered
			if got, err := k.nested(tid); got != want || err != nil {
				t.Errorf("thread %d: nested is %v, %v", tid, got, err)
			}
		}
	}
	below, endBelow := start(unix.CLONE_NEWPID)
	defer endBelow()
	plain, endPlain := start(0)
	check(below, true)
	check(plain, false)
	// Another thread that has the place of one that is known, and then its number.
	p := &k.last[plain%keptCallers]
	if p.tid != plain {
		t.Fatalf("thread %d is not known", plain)
	}
	p.nested = true // as if the number had been that of another
	endPlain()
	if _, err := k.nested(plain); err == nil {
		t.Errorf("thread %d has ended, and is known", plain)
	}
	if p.tid == plain {
		t.Errorf("thread %d has ended, and is remembered", plain)
	}
	for range 2 * keptCallers {
		tid, end := start(0)
		check(tid, false)
		end()
	}
	check(below, true)
}

// A caller that is stopped in a call gets its answer when it goes on; signals do not
// end a call that was received.
func TestStoppedCaller(t *testing.T) {
	p := caller(t)
	h := newBlocker()
	g := open(t, h, p.listener)
	c := p.order(order{Nr: unix.SYS_GETSID, Args: [6]uint64{foreignPID(1)}})
	eventually(t, "a held call", func() bool { return h.held.Load() == 1 })
	pid := p.cmd.Process.Pid
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	close(h.open)
	allFree(t, g) // the receiver does not wait for the caller to go on
	if err := unix.Kill(pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if r := wait(t, c); r.Errno != 0 || r.Ret != int64(testNode()) {
		t.Errorf("%d, %v", r.Ret, r.Errno)
	}
	if n := h.held.Load(); n != 1 {
		t.Errorf("the handler was asked %d times", n)
	}
}

// A process with the filter may have filters of its own, but no second listener.
func TestNestedFilter(t *testing.T) {
	p := caller(t)
	h := &recorder{}
	open(t, h, p.listener)
	if r := p.call(unix.SYS_SECCOMP, [6]uint64{unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, 0}); r.Errno != unix.EFAULT {
		t.Errorf("no program: %v", r.Errno)
	}
	if r := p.call(unix.SYS_PRCTL, [6]uint64{unix.PR_GET_NO_NEW_PRIVS}); r.Ret != 0 {
		t.Errorf("no new privileges: %d", r.Ret)
	}
	// strace gives what it runs a filter, as container runtimes do.
	if s := output(t, "strace", "-f", "--seccomp-bpf", "-e", "trace=kill,execve", "-o", "/dev/null", "bash", "-c", "kill -0 -$$ 2>/dev/null; echo $?"); s != "1" {
		t.Errorf("strace with a filter: %q", s)
	}
	if r := p.call(unix.SYS_GETSID, [6]uint64{foreignPID(1)}); r.Errno != 0 || h.count() != 1 {
		t.Errorf("%v, the handler was asked %d times", r.Errno, h.count())
	}
}
