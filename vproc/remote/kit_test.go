package remote

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/cluster/member"
	"ssi/internal/id"
	"ssi/vproc/call"
)

// The tests run as node 1 in a PID namespace of their own. Node 2, or each of three
// nodes, is a daemon in another one, which its PID 1 starts anew when it is killed.
const (
	insideEnv = "SSI_TEST_INSIDE" // the process is in a PID namespace for tests
	homeEnv   = "SSI_TEST_HOME"   // the node and the directory of the daemon that the process is
)

// patience bounds every wait of the tests.
const patience = 30 * time.Second

// window has the next PIDs be of node n, in a namespace that has room for them.
func window(n id.Node) error {
	first, _ := n.Window()
	return errors.Join(
		os.WriteFile("/proc/sys/kernel/pid_max", []byte("4194304"), 0),
		os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(int(first)+300)), 0))
}

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(callerEnv) != "":
		fmt.Fprintln(os.Stderr, becomeCaller(os.Args[1:]))
		os.Exit(1)
	case os.Getenv(onnodeEnv) != "":
		fmt.Fprintln(os.Stderr, runOnNode(os.Getenv(onnodeEnv), os.Args[1:]))
		os.Exit(1)
	case os.Getenv(homeEnv) != "":
		fmt.Fprintln(os.Stderr, serveHome(os.Getenv(homeEnv)))
		os.Exit(1)
	case os.Getenv(insideEnv) != "" || os.Getuid() != 0:
		os.Exit(m.Run())
	}
	cmd := inNamespace(`"$0" "$@"; exit $?`, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	path, stop, err := startHomes()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cmd.Env = append(os.Environ(), insideEnv+"="+path)
	err = cmd.Run()
	stop()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(cmd.ProcessState.ExitCode())
}

// startHomes serves the wish for another node: its namespace must not be below that
// of the tests, whose processes would see its. Who connects sends its number and a
// directory; the end of the connection is the end of the node.
func startHomes() (path string, stop func(), err error) {
	dir, err := os.MkdirTemp("/dev/shm", "homes")
	if err != nil {
		return "", nil, err
	}
	path = filepath.Join(dir, "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		return "", nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go startHome(c)
		}
	}()
	return path, func() { _, _ = l.Close(), os.RemoveAll(dir) }, nil
}

func startHome(c net.Conn) {
	defer func() { _ = c.Close() }()
	r := bufio.NewReader(c)
	home, err := r.ReadString('\n')
	if err != nil {
		return
	}
	cmd := inNamespace(`exec 3>&2; while :; do "$0" 2>&3; done 2>/dev/null`) // without what the shell says about killed ones
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), homeEnv+"="+strings.TrimSpace(home))
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	_, _ = r.ReadByte()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// inNamespace is a shell that is PID 1, with the program as $0.
func inNamespace(script string, args ...string) *exec.Cmd {
	cmd := exec.Command("sh", append([]string{"-c", "mount -t proc proc /proc || exit 1; " + script, os.Args[0]}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	return cmd
}

func needInside(t testing.TB) {
	t.Helper()
	if os.Getenv(insideEnv) == "" {
		t.Skip("needs root: PID namespaces and other users")
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantHome has another node be there until the test ends.
func wantHome(t testing.TB, n id.Node, dir string) {
	t.Helper()
	c, err := net.Dial("unix", os.Getenv(insideEnv))
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	_, err = fmt.Fprintln(c, n, dir)
	must(t, err)
}

// Home is the daemon of another node, for net/rpc.
type Home struct {
	m         *Remote
	self      id.Node
	dir       string
	dieIn     atomic.Int64 // calls until it kills itself; 0: never
	protected struct {
		sync.Mutex
		pids []int
	}
	placed placed
}

// Message is one of another node.
type Message struct {
	From  id.Node
	Bytes []byte
}

// Start says what to start: a program for a user, in a group or a session of its
// own, with standard output to a file. Environment is that of the tests.
type Start struct {
	Args    []string
	UID     uint32
	Group   int // Pgid of exec
	Session bool
	Output  string
}

func serveHome(home string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	h := &Home{}
	if _, err := fmt.Sscan(home, &h.self, &h.dir); err != nil {
		return err
	}
	if err := window(h.self); err != nil {
		return err
	}
	if err := h.placed.load(h.knowledge()); err != nil {
		return err
	}
	var err error
	h.m, err = New(Config{
		Self: h.self, Peers: newMesh(h.self, h.dir), Log: log, Dir: filepath.Join(h.dir, fmt.Sprintf("home%d", h.self)),
		Lives: h.placed.lives,
		Protected: func() []int {
			h.protected.Lock()
			defer h.protected.Unlock()
			return slices.Clone(h.protected.pids)
		},
	})
	if err != nil {
		return err
	}
	if h.self == 2 {
		if err := serveOnNode(h.dir); err != nil {
			return err
		}
	}
	path := socketOf(h.dir, h.self)
	_ = os.Remove(path)
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	s := rpc.NewServer()
	if err := s.Register(h); err != nil {
		return err
	}
	s.Accept(l)
	return nil
}

// Call is methodCall. When its time has come the daemon is killed after the call.
func (h *Home) Call(m Message, reply *[]byte) (err error) {
	*reply, err = h.m.ServeCall(context.Background(), m.From, m.Bytes)
	if h.dieIn.Load() > 0 && h.dieIn.Add(-1) == 0 {
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	}
	return err
}

// Kill has the daemon kill itself at once.
func (h *Home) Kill(bool, *bool) error { return unix.Kill(os.Getpid(), unix.SIGKILL) }

// Wait is methodWait.
func (h *Home) Wait(m Message, reply *[]byte) (err error) {
	*reply, err = h.m.ServeWait(context.Background(), m.From, m.Bytes)
	return err
}

// Die has the daemon kill itself after n calls.
func (h *Home) Die(n int64, _ *bool) error { h.dieIn.Store(n); return nil }

// Protect sets the protected processes.
func (h *Home) Protect(pids []int, _ *bool) error {
	h.protected.Lock()
	defer h.protected.Unlock()
	h.protected.pids = pids
	return nil
}

// Start starts a program and tells its PID. Whose daemon is killed, it goes on.
func (h *Home) Start(s Start, pid *int) error { return s.start(pid) }

func (s Start) start(pid *int) error {
	cmd := exec.Command(s.Args[0], s.Args[1:]...)
	// As programs of users are, it is no child of the daemon but of PID 1, which reaps it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_PARENT, Setpgid: s.Group >= 0 && !s.Session, Pgid: max(s.Group, 0), Setsid: s.Session, Credential: &syscall.Credential{Uid: s.UID, Gid: s.UID}}
	if s.Output != "" {
		f, err := os.OpenFile(s.Output, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		cmd.Stdout, cmd.Stderr = f, f
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	*pid = cmd.Process.Pid
	return cmd.Process.Release()
}

// world is node 1, and node 2 with a daemon.
type world struct {
	t     testing.TB
	m     *Remote
	peers *peers
	dir   string
	seq   atomic.Uint64
	guard []int // protected here
}

func newWorld(t testing.TB) *world {
	t.Helper()
	needInside(t)
	dir, err := os.MkdirTemp("/dev/shm", "remote")
	must(t, err)
	must(t, os.Chmod(dir, 0o711))
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &world{t: t, dir: dir, peers: &peers{link: link{node: 2, socket: socketOf(dir, 2)}}}
	must(t, window(1))
	wantHome(t, 2, dir)
	w.open()
	t.Cleanup(func() { w.m.Close() })
	eventually(t, "node 2", func() bool { return w.peers.do(t.Context(), "Die", int64(0), new(bool)) == nil })
	return w
}

func (w *world) open() {
	w.t.Helper()
	m, err := New(Config{
		Self: 1, Peers: w.peers, Log: slog.New(slog.DiscardHandler), Dir: filepath.Join(w.dir, "run"),
		Protected: func() []int { return w.guard },
		Name:      "test", Members: func() *member.View { return testView() },
	})
	must(w.t, err)
	w.m = m
}

// there starts a program on node 2.
func (w *world) there(s Start) int {
	w.t.Helper()
	var pid int
	must(w.t, w.peers.do(w.t.Context(), "Start", s, &pid))
	if id.PID(pid).Home() != 2 {
		w.t.Fatalf("a process of node 2 has PID %d", pid)
	}
	return pid
}

// here starts a program on node 1; the test waits for it.
func (w *world) here(s Start) int {
	w.t.Helper()
	var pid int
	must(w.t, s.start(&pid))
	w.t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGKILL) })
	return pid
}

func sleeps() []string { return []string{"sleep", "1000"} }

// caller is a process of node 1 that only its numbers make.
func caller(uid uint32) call.Caller {
	c := call.Caller{
		Node: 1, PID: 1<<id.PIDShift + 9000, TID: 1<<id.PIDShift + 9000, PGID: 1<<id.PIDShift + 9000, SID: 1<<id.PIDShift + 9000,
		UID: uid, EUID: uid, SUID: uid, FSUID: uid, GID: uid, EGID: uid, SGID: uid, FSGID: uid,
	}
	if uid == 0 {
		c.Caps = 1<<41 - 1
	}
	return c
}

func (w *world) request(c call.Caller, nr call.Nr, args ...int) *call.Request {
	r := &call.Request{Nr: nr, Caller: c, Origin: call.Origin{Node: 1, Incarnation: 7, Seq: w.seq.Add(1)}}
	for i, a := range args {
		r.Args[i] = uint64(a)
	}
	return r
}

func (w *world) handle(r *call.Request) call.Outcome {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return w.m.Handle(ctx, r)
}

func (w *world) call(c call.Caller, nr call.Nr, args ...int) call.Outcome {
	return w.handle(w.request(c, nr, args...))
}

// said is an outcome in words.
func said(o call.Outcome) string {
	switch {
	case o.Continue:
		return "continue"
	case o.File != nil:
		return "a file"
	case o.Reply.Errno != 0:
		return unix.ErrnoName(o.Reply.Errno)
	}
	return strconv.FormatInt(o.Reply.Ret, 10)
}

// lines is what a program wrote to its output so far.
func lines(t testing.TB, path string) []string {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer func() { _ = f.Close() }()
	var all []string
	for s := bufio.NewScanner(f); s.Scan(); {
		all = append(all, s.Text())
	}
	return all
}

// taker is a program that writes a line for each signal it takes: number, code,
// si_pid, si_uid and value, which python does not tell, from the kernel by signalfd.
const taker = `
import ctypes, os, signal, struct, sys
uid = int(sys.argv[1])
os.setgroups([]), os.setresgid(uid, uid, uid), os.setresuid(uid, uid, uid)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
mask = ctypes.create_string_buffer(b"\xff" * 8)
fd = ctypes.CDLL(None, use_errno=True).syscall(289, -1, mask, 8, 0)
print("ready", os.getpid(), flush=True)
while True:
    b = os.read(fd, 128 * 16)
    out = ""
    for i in range(0, len(b), 128):
        signo, _, code, pid, uid = struct.unpack_from("=IiiII", b, i)
        value, = struct.unpack_from("=i", b, i + 44)
        if signo != 17 and signo != 18: out += "%d %d %d %d %d\n" % (signo, code, pid, uid, value)
    os.write(1, out.encode())
`

// taking starts a taker on node 2.
func (w *world) taking(s Start) (pid int, output string) {
	w.t.Helper()
	s.Output = filepath.Join(w.dir, fmt.Sprintf("out%d", w.seq.Add(1)))
	s.Args = []string{"python3", "-c", taker, fmt.Sprint(s.UID)}
	s.UID = 0 // python need not be for everybody
	pid = w.there(s)
	eventually(w.t, "a program that takes signals", func() bool {
		all := lines(w.t, s.Output)
		return len(all) > 0 && all[0] == fmt.Sprintf("ready %d", pid)
	})
	return pid, s.Output
}

func testView() *member.View {
	return &member.View{Epoch: 77, Init: 2, Nodes: []member.Node{
		{Node: 1, State: member.Up, Info: member.Info{Name: "one", Capable: true}, Incarnation: 11, Since: 5},
		{Node: 2, State: member.Up, Info: member.Info{Name: "two"}, Incarnation: 22, Since: 6},
		{Node: 3, State: member.Up, Info: member.Info{Name: "three", Witness: true}, Incarnation: 33, Since: 7},
		{Node: 4, State: member.Down, Info: member.Info{Name: "four"}, Incarnation: 44, Since: 8},
	}}
}
