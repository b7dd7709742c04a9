package gate

import (
	"encoding/gob"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
	"ssi/internal/keeper"
	"ssi/internal/sys"
)

// The test binary is several programs: installMode installs the filter, sends the
// listener to descriptor 3 and executes its arguments; callerMode makes the calls
// that descriptor 4 orders; gateMode is a daemon; attackMode is a program that means harm.
const (
	installMode = "install-filter"
	callerMode  = "make-calls"
	gateMode    = "run-gate"
	attackMode  = "attack"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case installMode:
			exit(installAndExec(os.Args[2:]))
		case callerMode:
			exit(makeCalls())
		case gateMode:
			exit(runGate(os.Args[2:]))
		case attackMode:
			exit(attack(uint64(os.Getpid())))
		}
	}
	os.Exit(m.Run())
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// testNode is a node whose window holds the test's own processes, if any does: the
// Go runtime of a caller signals itself.
func testNode() id.Node {
	if n := id.PID(os.Getpid()).Home(); n.Valid() {
		return n
	}
	return 3
}

// foreignPID is the i-th of a window that is not testNode's.
func foreignPID(i int) uint64 {
	first, _ := (testNode()%id.MaxNode + 1).Window()
	return uint64(first) + uint64(i)
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it installs a filter with a listener")
	}
}

// patience is the limit of all waiting.
const patience = 60 * time.Second

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
		pause := time.NewTimer(time.Millisecond)
		<-pause.C
	}
}

func installAndExec(argv []string) error {
	listener, err := Install(testNode())
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(3, []byte{1}, unix.UnixRights(int(listener.Fd())), nil, 0); err != nil {
		return err
	}
	_ = unix.Close(3)
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	return syscall.Exec(path, argv, os.Environ())
}

// order is a system call to make; Mem are arguments that point to memory.
type order struct {
	ID    int
	Nr    uint64
	Args  [6]uint64
	Mem   []memArg
	Times int // 0: once
	// Become, if set, are new IDs for all threads, instead of a call.
	Become *[2]int
}

type memArg struct {
	Arg  int
	Data []byte
}

// result is what came of an order.
type result struct {
	ID       int
	Ret      int64
	Errno    syscall.Errno
	Mem      [][]byte
	PID, TID int
}

// makeCalls makes calls, each on a thread of its own, until the connection ends.
func makeCalls() error {
	f := os.NewFile(4, "orders")
	conn, err := net.FileConn(f)
	if err != nil {
		return err
	}
	_ = f.Close()
	in, out := gob.NewDecoder(conn), gob.NewEncoder(conn)
	if err := out.Encode(result{}); err != nil { // it has begun
		return err
	}
	var mu sync.Mutex
	for {
		var o order
		if err := in.Decode(&o); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if o.Become != nil {
			_ = syscall.Setgroups([]int{o.Become[1], 77})
			_ = syscall.Setresgid(o.Become[1], o.Become[1], o.Become[1])
			_ = syscall.Setresuid(o.Become[0], o.Become[0], o.Become[0])
		}
		go func() {
			r := result{ID: o.ID, PID: os.Getpid()}
			if o.Become == nil {
				makeCall(&o, &r)
			}
			mu.Lock()
			defer mu.Unlock()
			_ = out.Encode(r)
		}()
	}
}

func makeCall(o *order, r *result) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r.TID = unix.Gettid()
	a := o.Args
	for _, m := range o.Mem {
		b := append(m.Data, 0)[:len(m.Data)]
		r.Mem = append(r.Mem, b)
		a[m.Arg] = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b))))
	}
	for range max(o.Times, 1) {
		v, _, e := unix.Syscall6(uintptr(o.Nr), uintptr(a[0]), uintptr(a[1]), uintptr(a[2]), uintptr(a[3]), uintptr(a[4]), uintptr(a[5]))
		r.Ret, r.Errno = int64(v), e
	}
	runtime.KeepAlive(r)
}

// program is a process with the filter.
type program struct {
	t        testing.TB
	cmd      *exec.Cmd
	listener *os.File
	conn     net.Conn     // descriptor 4 there
	out      *gob.Encoder // of orders
	reading  sync.Once

	mu      sync.Mutex
	next    int
	waiting map[int]chan result
}

// socketpair is two ends of a connection.
func socketpair(t testing.TB) (ours, theirs *os.File) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(p[0]), "ours"), os.NewFile(uintptr(p[1]), "theirs")
}

// self is the test binary.
func self(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// start runs a program with the filter; the test gets the listener. The program is
// killed with the test.
func start(t testing.TB, out io.Writer, argv ...string) *program {
	t.Helper()
	needRoot(t)
	ours, theirs := socketpair(t)
	p := startAs(t, out, theirs, append([]string{installMode}, argv...)...)
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	_ = ours.Close()
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, files, err := keeper.Receive(conn.(*net.UnixConn), make([]byte, 1))
	if err != nil || len(files) != 1 {
		t.Fatalf("%d listeners, %v", len(files), err)
	}
	p.listener = files[0]
	return p
}

// startAs runs the test binary in a mode, with descriptors 3 and that of orders.
func startAs(t testing.TB, out io.Writer, three *os.File, args ...string) *program {
	t.Helper()
	p := &program{t: t, waiting: map[int]chan result{}}
	orders, theirs := socketpair(t)
	p.cmd = exec.Command(self(t), args...)
	p.cmd.ExtraFiles = []*os.File{three, theirs}
	p.cmd.Stdout, p.cmd.Stderr = out, os.Stderr
	if out != nil {
		p.cmd.Stderr = out
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	_ = theirs.Close()
	if three != nil {
		_ = three.Close()
	}
	conn, err := net.FileConn(orders)
	if err != nil {
		t.Fatal(err)
	}
	_ = orders.Close()
	t.Cleanup(func() { _ = conn.Close() })
	p.conn, p.out = conn, gob.NewEncoder(conn)
	return p
}

// caller runs callerMode with the filter, by way of the programs before it.
func caller(t testing.TB, by ...string) *program {
	t.Helper()
	p := start(t, nil, append(by, self(t), callerMode)...)
	p.begin()
	return p
}

// begin waits until the program has begun. What its C library asks of itself before
// (pthread_getattr_np(3) its processors, say) is none of the test's calls.
func (p *program) begin() {
	p.t.Helper()
	begun := make(chan result, 1)
	p.mu.Lock()
	p.waiting[0] = begun
	p.mu.Unlock()
	p.reading.Do(func() { go p.read() })
	raw, err := p.listener.SyscallConn()
	if err != nil {
		p.t.Fatal(err)
	}
	eventually(p.t, "a program begins", func() bool {
		select {
		case <-begun:
			return true
		default:
		}
		if cerr := raw.Control(func(fd uintptr) { err = letGo(int(fd)) }); cerr != nil || err != nil {
			p.t.Fatal(cerr, err)
		}
		return false
	})
}

// letGo has the kernel go on with a call, if one waits.
func letGo(listener int) error {
	poll := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
	if n, err := unix.Poll(poll, 0); n == 0 || err == unix.EINTR {
		return nil
	} else if err != nil {
		return err
	}
	var n sys.Notification
	if err := sys.ReceiveNotification(listener, &n); err != nil {
		return err
	}
	return sys.ContinueNotification(listener, n.ID)
}

// read ends with the connection.
func (p *program) read() {
	in := gob.NewDecoder(p.conn)
	for {
		var r result
		if in.Decode(&r) != nil {
			return
		}
		p.mu.Lock()
		c := p.waiting[r.ID]
		delete(p.waiting, r.ID)
		p.mu.Unlock()
		if c != nil {
			c <- r
		}
	}
}

// order gives an order; the result comes through the channel.
func (p *program) order(o order) <-chan result {
	p.t.Helper()
	p.reading.Do(func() { go p.read() })
	c := make(chan result, 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next++
	o.ID = p.next
	p.waiting[o.ID] = c
	if err := p.out.Encode(o); err != nil {
		p.t.Error(err)
	}
	return c
}

// wait is the result of an order.
func wait(t testing.TB, c <-chan result) result {
	t.Helper()
	select {
	case r := <-c:
		return r
	case <-time.After(patience):
		t.Fatal("a call does not return")
	}
	return result{}
}

// call makes a call and waits for it.
func (p *program) call(nr uint64, args [6]uint64, mem ...memArg) result {
	p.t.Helper()
	return wait(p.t, p.order(order{Nr: nr, Args: args, Mem: mem}))
}

// kill ends the program, and waits until it is gone.
func (p *program) kill() {
	p.t.Helper()
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// logOf writes to the test's log while the test runs.
func logOf(t testing.TB) *slog.Logger {
	if _, ok := t.(*testing.B); ok {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(testLog{t}, nil))
}

type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// open makes a gate with one listener, which is closed with the test.
func open(t testing.TB, h Handler, listener *os.File) *Gate {
	t.Helper()
	return openWith(t, Config{Handler: h, Kept: map[uint64]*os.File{1: listener}}, limits{userCalls, callTime, lateTime})
}

func openWith(t testing.TB, c Config, l limits) *Gate {
	t.Helper()
	c.Log, c.Node = logOf(t), testNode()
	if c.Journal == "" {
		c.Journal = filepath.Join(t.TempDir(), "journal")
	}
	g, err := newGate(c, l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}
