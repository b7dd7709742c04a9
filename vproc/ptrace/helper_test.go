package ptrace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"ssi/cluster/member"
	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/keeper"
	"ssi/vproc/call"
	"ssi/vproc/gate"
)

// The test binary is several programs: installMode installs the filter, sends the
// listener to descriptor 3 and executes its arguments; daemonMode serves the listener 3;
// SurrogateRole tells what it is.
const (
	installMode = "install-filter"
	daemonMode  = "run-daemon"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case installMode:
			exit(installAndExec(os.Args[2:]))
		case daemonMode:
			exit(runDaemon(os.Args[2]))
		case SurrogateRole:
			exit(tellOrder(os.Args[2:]))
		}
	}
	status := m.Run()
	if callerBuild.path != "" {
		_ = os.RemoveAll(filepath.Dir(callerBuild.path))
	}
	os.Exit(status)
}

// exit ends the process at once; os.Exit takes a second with -race.
func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		syscall.Exit(1)
	}
	syscall.Exit(0)
}

// testNode is a node whose window holds the test's own processes, if any does.
func testNode() id.Node {
	if n := id.PID(os.Getpid()).Home(); n.Valid() {
		return n
	}
	return 3
}

// Nodes of the test's cluster.
const (
	otherNode   = 100
	downNode    = 101
	witnessNode = 102
	silentNode  = 103
)

func testView() *member.View {
	nodes := []member.Node{{Node: testNode(), State: member.Up}}
	return &member.View{Nodes: append(nodes,
		member.Node{Node: otherNode, State: member.Up},
		member.Node{Node: downNode, State: member.Down},
		member.Node{Node: witnessNode, State: member.Up, Info: member.Info{Witness: true}},
		member.Node{Node: silentNode, State: member.Up})}
}

// loop has the other node's questions answered by the Server itself.
type loop struct{ s *Server }

func (l *loop) Call(ctx context.Context, n id.Node, _ string, req, reply proto.Message) error {
	if n == silentNode {
		return errno.New(errno.Unavailable, "", n, "it left")
	}
	e, err := l.s.ServeCheck(ctx, req.(*wrapperspb.BytesValue).GetValue())
	reply.(*wrapperspb.UInt32Value).Value = uint32(e)
	return err
}

func newServer() (*Server, error) {
	l := &loop{}
	s, err := New(Config{Self: testNode(), Members: testView, Peers: l, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	l.s = s
	return s, err
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it installs a filter with a listener")
	}
	if !supported {
		t.Skip("the registers of this machine are not known")
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

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func installAndExec(argv []string) error {
	listener, err := gate.Install(testNode())
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

// tellOrder tells who it is and what it was ordered; a last argument "status N" is its
// exit status.
func tellOrder(args []string) error {
	o, err := TakeOrder(args[0])
	if err != nil {
		return err
	}
	sid, _ := unix.Getsid(0)
	fmt.Printf("surrogate %d %d %d %d of %s as %s on %d: %q %q\n", os.Getpid(), os.Getppid(), unix.Getpgrp(), sid, o.Path, o.Arg0, o.Node, args[1:], os.Environ())
	if len(args) > 1 && args[1] == "die" {
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	}
	return nil
}

// program is a process with the filter.
type program struct {
	t        testing.TB
	cmd      *exec.Cmd
	out      bytes.Buffer
	listener *os.File
}

// start runs a program with the filter; nobody serves it yet.
func start(t testing.TB, argv ...string) *program {
	t.Helper()
	needRoot(t)
	p := &program{t: t}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	theirs := os.NewFile(uintptr(pair[1]), "theirs")
	p.cmd = exec.Command("/proc/self/exe", append([]string{installMode}, argv...)...)
	p.cmd.ExtraFiles = []*os.File{theirs}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.Env = append(os.Environ(), "KEPT=yes")
	must(t, p.cmd.Start())
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	_ = theirs.Close()
	ours := os.NewFile(uintptr(pair[0]), "ours")
	conn, err := net.FileConn(ours)
	must(t, err)
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

// end waits for the end of the program and returns what it printed and its status.
func (p *program) end() (string, *os.ProcessState) {
	p.t.Helper()
	late := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	err := p.cmd.Wait()
	if !late.Stop() {
		p.t.Errorf("%v does not end", p.cmd.Args)
	}
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		p.t.Errorf("%v: %v", p.cmd.Args, err)
	}
	return p.out.String(), p.cmd.ProcessState
}

// daemon is a process that answers the calls of a program: it must not be the parent
// of that, as its waiting for children would take the stops of what it traces.
type daemon struct {
	cmd *exec.Cmd
	end io.Closer // of its standard input
}

func (p *program) daemon(journal string) *daemon {
	p.t.Helper()
	cmd := exec.Command("/proc/self/exe", daemonMode, journal)
	cmd.ExtraFiles = []*os.File{p.listener}
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	in, err := cmd.StdinPipe()
	must(p.t, err)
	must(p.t, cmd.Start())
	return &daemon{cmd, in}
}

// serve answers the calls of the program until the test ends.
func (p *program) serve() {
	p.t.Helper()
	d := p.daemon(filepath.Join(p.t.TempDir(), "journal"))
	p.t.Cleanup(func() {
		_ = d.end.Close()
		if err := d.cmd.Wait(); err != nil {
			p.t.Errorf("the daemon: %v", err)
		}
	})
}

// runDaemon serves listener 3, for other nodes and this one, until it is killed or its
// standard input ends.
func runDaemon(journal string) error {
	s, err := newServer()
	if err != nil {
		return err
	}
	g, err := gate.New(gate.Config{
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), Node: testNode(), Journal: journal, Handler: others{s}, Kept: map[uint64]*os.File{1: os.NewFile(3, "listener")},
	})
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return errors.Join(g.Close(), s.Close())
}

// builds compiles testdata/caller.c once for all tests.
type builds struct {
	once sync.Once
	path string
	err  error
}

var callerBuild builds

func caller(t testing.TB) string {
	t.Helper()
	callerBuild.once.Do(func() { // it is removed by TestMain
		dir, err := os.MkdirTemp("", "caller")
		if err != nil {
			callerBuild.err = err
			return
		}
		callerBuild.err = os.Chmod(dir, 0o755) // for other users
		callerBuild.path = filepath.Join(dir, "caller")
		out, err := exec.Command("gcc", "-O1", "-Wall", "-pthread", "-static", "-o", callerBuild.path, "testdata/caller.c").CombinedOutput()
		if err != nil {
			callerBuild.err = fmt.Errorf("gcc: %w\n%s", err, out)
		}
	})
	if callerBuild.err != nil {
		t.Skipf("the program that calls: %v", callerBuild.err)
	}
	return callerBuild.path
}

// calls runs the program in a mode, served, and returns what it prints.
func calls(t testing.TB, mode string, node int, args ...string) (string, *os.ProcessState) {
	t.Helper()
	p := start(t, append([]string{caller(t), mode, fmt.Sprint(node)}, args...)...)
	p.serve()
	return p.end()
}

// fails tells whether a call is refused.
func fails(t *testing.T, want string, mode string, node int, args ...string) {
	t.Helper()
	got, _ := calls(t, mode, node, args...)
	if got = strings.TrimSpace(got); got != mode+" -1 "+want {
		t.Errorf("%s on node %d, %v: %q, want %s", mode, node, args, got, want)
	}
}

// others leaves all calls but rexecve to the kernel.
type others struct{ s *Server }

func (o others) Handle(ctx context.Context, r *call.Request) call.Outcome {
	if r.Nr != call.Rexecve {
		return call.Outcome{Continue: true}
	}
	return o.s.Handle(ctx, r)
}
