package procfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/keeper"
)

// The test binary is every process of two machines: PID namespaces with windows of
// their own. Machine 1 has a process 1 that keeps files, the role mount, and a role spawn that sets up the
// view and runs the tests whose names begin with TestView in it; machine 2 has processes to look at.
const (
	modeEnv  = "SSI_PROCFS_TEST"
	dirEnv   = "SSI_PROCFS_DIR"   // for sockets
	countEnv = "SSI_PROCFS_COUNT" // how many idle processes machine 2 has
	spawnEnv = "SSI_PROCFS_SPAWN" // "half": a spawn role dies in the middle before; "fail": there is no role mount
)

func TestMain(m *testing.M) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	switch os.Getenv(modeEnv) {
	case "":
		os.Exit(m.Run())
	case "machine1":
		os.Exit(machine1(log))
	case "machine2":
		os.Exit(machine2())
	case "mount":
		os.Exit(Run(log))
	case "spawn":
		os.Exit(spawnRole(log))
	case "view": // in the view: only some tests
		os.Exit(m.Run())
	case "idle":
		for { // not select{}: the runtime ends a program in which nothing can happen any more
			_ = unix.Pause()
		}
	case "local":
		os.Exit(localRole())
	case "itself":
		os.Exit(itselfRole())
	case "half":
		os.Exit(halfRole(log))
	}
	os.Exit(3)
}

func fatal(what string, err error) int {
	fmt.Fprintln(os.Stderr, "machine:", what+":", err)
	return 3
}

// self is a command that runs the test binary in a mode.
func self(mode string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, modeEnv+"=") }), modeEnv+"="+mode)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd
}

// newMachine makes this process, process 1 of a PID namespace, node n.
func newMachine(n id.Node) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/kernel/pid_max", []byte("4194304"), 0); err != nil {
		return err
	}
	first, _ := n.Window()
	return os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(int(first)+299)), 0)
}

// cluster is what the tests in the view control.
type cluster struct {
	dir     string
	service Service
	pids    map[string]int

	remote sync.Mutex // the connection to machine 2
	out    *json.Encoder
	in     *json.Decoder

	mu      sync.Mutex
	kept    map[string]*os.File
	gone    bool // machine 2 has left
	placed  map[id.PID]bool
	places  *Places
	relay   *Relay
	slow    chan struct{}
	changed chan struct{}
	mount   *exec.Cmd
	lives   int
	fetches int
}

// Call implements Nodes.
func (c *cluster) Call(ctx context.Context, n id.Node, method string, req, reply proto.Message) error {
	c.mu.Lock()
	slow := c.slow
	c.mu.Unlock()
	if slow != nil {
		select {
		case <-slow:
		case <-ctx.Done():
			return errno.New(errno.Timeout, "call", n, "%w", ctx.Err())
		}
	}
	var rep proto.Message
	var err error
	switch method {
	case methodPoll:
		rep, err = c.service.Poll(ctx, req.(*PollRequest))
	case methodFetch:
		c.mu.Lock()
		c.fetches++
		c.mu.Unlock()
		rep, err = c.service.Fetch(ctx, req.(*FetchRequest))
	}
	if err != nil {
		return err
	}
	proto.Merge(reply, rep)
	return nil
}

// Watch implements Nodes.
func (c *cluster) Watch() (*Cluster, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := &Cluster{Self: 1, Up: []uint32{1, 2}, Files: []*File{{Name: "nodes", Content: []byte("1 up\n2 up\n")}, {Name: "self", Content: []byte("1\n")}}}
	if c.gone {
		now.Up, now.Files[0].Content = []uint32{1}, []byte("1 up\n")
	}
	return now, c.changed
}

func (c *cluster) isPlaced(pid id.PID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.placed[pid]
}

// control is what a test in the view asks for.
type control struct {
	Do   string
	Args []string
}

type controlled struct {
	PIDs    map[string]int
	Lives   int
	Fetches int
	Mount   int // the PID of the role mount
	Remote  remoteAnswer
}

func (c *cluster) control(_ context.Context, call *api.Call) error {
	var p control
	if err := call.Params(&p); err != nil {
		return err
	}
	var rep controlled
	if p.Do == "remote" {
		c.remote.Lock()
		defer c.remote.Unlock()
		if err := c.out.Encode(p.Args); err != nil {
			return err
		}
		if err := c.in.Decode(&rep.Remote); err != nil {
			return err
		}
		return call.Reply(rep)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	pid := id.PID(0)
	if len(p.Args) == 1 {
		pid, _ = pidOf(p.Args[0])
	}
	changed := true
	switch p.Do {
	case "leave", "join":
		c.gone = p.Do == "leave"
	case "here": // the process of that PID lives on machine 1
		c.places = &Places{Placed: append(slices.Clone(c.places.Placed), pid), Away: c.places.Away}
		c.relay.SetPlaces(c.places)
	case "there": // on machine 2, which publishes it
		c.placed[pid] = true
	case "away": // and machine 1 knows that
		c.places = &Places{Placed: c.places.Placed, Away: map[id.PID]id.Node{pid: 2}}
		c.relay.SetPlaces(c.places)
	default:
		changed = false
	}
	if changed {
		close(c.changed)
		c.changed = make(chan struct{})
	}
	switch p.Do {
	case "slow":
		c.slow = make(chan struct{})
	case "fast":
		close(c.slow)
		c.slow = nil
	case "kill": // the role mount
		_ = c.mount.Process.Kill()
	}
	rep.PIDs, rep.Lives, rep.Fetches = c.pids, c.lives, c.fetches
	if c.mount != nil {
		rep.Mount = c.mount.Process.Pid
	}
	return call.Reply(rep)
}

// keeperPair is PID 1's side of a role's connection.
func (c *cluster) keeperPair() (*os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fds[0]), "keeper")
	conn, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		return nil, err
	}
	go c.keep(conn.(*net.UnixConn))
	return os.NewFile(uintptr(fds[1]), "keeper"), nil
}

func (c *cluster) keep(conn *net.UnixConn) {
	defer conn.Close()
	buf := make([]byte, keeper.MaxPacket)
	for {
		n, files, err := keeper.Receive(conn, buf)
		if err != nil || n == 0 {
			return
		}
		name, result := string(buf[1:n]), keeper.Done
		var rights []byte
		c.mu.Lock()
		switch keeper.Op(buf[0]) {
		case keeper.OpPut:
			if old := c.kept[name]; old != nil {
				_ = old.Close()
			}
			c.kept[name] = files[0]
		case keeper.OpTake:
			if f := c.kept[name]; f != nil {
				rights = unix.UnixRights(int(f.Fd()))
			} else {
				result = keeper.NotKept
			}
		case keeper.OpDrop:
			if f := c.kept[name]; f != nil {
				_ = f.Close()
				delete(c.kept, name)
			}
		}
		_, _, err = conn.WriteMsgUnix(keeper.Answer(result), rights, nil)
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// role starts a role with a connection to PID 1.
func (c *cluster) role(mode string, args ...string) (*exec.Cmd, error) {
	f, err := c.keeperPair()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd := self(mode, args...)
	cmd.Env = append(cmd.Env, keeper.FDEnv+"=3", api.SocketEnv+"="+filepath.Join(c.dir, "api"))
	cmd.ExtraFiles = []*os.File{f}
	return cmd, cmd.Start()
}

// mounts runs the role mount, again and again.
func (c *cluster) mounts(log *slog.Logger) {
	for {
		c.mu.Lock()
		cmd, err := c.role("mount")
		c.mount = cmd
		c.lives++
		c.mu.Unlock()
		if err != nil {
			log.Error("machine", "err", err)
			return
		}
		_ = cmd.Wait()
	}
}

// machine1 is process 1 and the role node of machine 1.
func machine1(log *slog.Logger) int {
	if err := newMachine(1); err != nil {
		return fatal("machine 1", err)
	}
	c := &cluster{dir: os.Getenv(dirEnv), kept: map[string]*os.File{}, placed: map[id.PID]bool{}, places: &Places{}, changed: make(chan struct{})}
	// From outside: machine 2's /proc, and the connection to it.
	proc, in, out := os.NewFile(3, "proc"), os.NewFile(4, "answers"), os.NewFile(5, "commands")
	for _, f := range []*os.File{proc, in, out} {
		unix.CloseOnExec(int(f.Fd()))
	}
	c.in, c.out = json.NewDecoder(in), json.NewEncoder(out)
	if err := c.in.Decode(&c.pids); err != nil {
		return fatal("machine 2", err)
	}
	node, err := NewNode("/proc/self/fd/3", 2, c.isPlaced, nil)
	if err != nil {
		return fatal("node", err)
	}
	c.service = node
	s := api.NewServer(log)
	c.relay = NewRelay(c, log)
	s.Handle(Method, c.relay.Handle)
	s.Handle("test.Control", c.control)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(c.dir, "api"), Net: "unix"})
	if err != nil {
		return fatal("listen", err)
	}
	go func() { _ = s.Serve(l) }()
	if os.Getenv(spawnEnv) != "fail" {
		go c.mounts(log)
	}
	view, err := c.role("spawn", os.Args[1:]...)
	if err == nil {
		err = view.Wait()
	}
	if err != nil {
		return fatal("tests in the view", err)
	}
	return 0
}

// runMachine runs the tests or benchmarks of the view that the arguments name.
func runMachine(t testing.TB, env []string, args ...string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: namespaces and mounts")
	}
	if _, err := os.Stat("/dev/fuse"); errors.Is(err, fs.ErrNotExist) {
		t.Skip("no /dev/fuse: the kernel has no FUSE")
	}
	dir, err := os.MkdirTemp("", "procfs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	two := self("machine2")
	two.Env = append(append(two.Env, dirEnv+"="+dir), env...)
	two.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	answers, commands := pipe(t), pipe(t)
	two.ExtraFiles = []*os.File{answers[1], commands[0]}
	if err := two.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = two.Process.Kill(), two.Wait() }()
	_, _ = answers[1].Close(), commands[0].Close()
	ready := []unix.PollFd{{Fd: int32(answers[0].Fd()), Events: unix.POLLIN}}
	if n, err := unix.Poll(ready, 60_000); n != 1 || err != nil { // then it has mounted /proc; machine 1 reads it
		t.Fatalf("machine 2 is not ready: %v", err)
	}
	proc, err := os.Open("/proc/" + strconv.Itoa(two.Process.Pid) + "/root/proc")
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	cmd := self("machine1", args...)
	cmd.Env = append(append(cmd.Env, dirEnv+"="+dir), env...)
	cmd.ExtraFiles = []*os.File{proc, answers[0], commands[1]}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() }) // and with it all in its namespace
	defer stop()
	err = cmd.Wait()
	text, _ := os.ReadFile(out.Name())
	if err != nil {
		t.Errorf("the machine ended with %v:\n%s", err, text)
		return
	}
	t.Logf("%s", text)
}

func pipe(t testing.TB) [2]*os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return [2]*os.File{r, w}
}

func inView(t testing.TB) {
	t.Helper()
	if os.Getenv(modeEnv) != "view" {
		t.Skip("a part of TestView, which runs it in a view")
	}
}

// ask makes the machine do something.
func ask(t testing.TB, do string, args ...string) controlled {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := api.Dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var rep controlled
	if err := c.Call(ctx, "test.Control", control{do, args}, &rep); err != nil {
		t.Fatal(err)
	}
	return rep
}

// remotely runs a command on machine 2, with its plain /proc.
func remotely(t testing.TB, args ...string) (string, error) {
	t.Helper()
	a := ask(t, "remote", args...).Remote
	if a.Err != "" {
		return string(a.Out), errors.New(a.Err)
	}
	return string(a.Out), nil
}

// within waits until f says nothing.
func within(t testing.TB, limit time.Duration, f func() error) {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}
