package proctab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"ssi/cluster/ics"
	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeCluster is nodes in this process, which exchange messages in memory; they
// all read the same /proc.
type fakeCluster struct {
	self  id.Node
	nodes []id.Node
	there map[id.Node]*fakeNode
}

// fakeNode is the handlers of one node.
type fakeNode struct {
	unary  map[string]ics.Handler
	stream map[string]ics.StreamHandler
}

func newFakeNode(s Service) *fakeNode {
	n := &fakeNode{map[string]ics.Handler{}, map[string]ics.StreamHandler{}}
	Register(n, s)
	return n
}

func (n *fakeNode) Handle(method string, h ics.Handler)             { n.unary[method] = h }
func (n *fakeNode) HandleStream(method string, h ics.StreamHandler) { n.stream[method] = h }

// wire is a message after its way.
func wire(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

func noRoute(n id.Node) error { return errno.New(errno.Unavailable, "connect", n, "no route") }

func (f *fakeCluster) Self() id.Node    { return f.self }
func (f *fakeCluster) Nodes() []id.Node { return f.nodes }

func (f *fakeCluster) Call(ctx context.Context, n id.Node, method string, req, reply proto.Message) error {
	node := f.there[n]
	if node == nil {
		return noRoute(n)
	}
	got, err := node.unary[method](ctx, wire(req))
	if err != nil {
		return err
	}
	return proto.Unmarshal(wire(got), reply)
}

func (f *fakeCluster) Stream(ctx context.Context, n id.Node, method string, req proto.Message, take func([]byte) error) error {
	node := f.there[n]
	if node == nil {
		return noRoute(n)
	}
	return node.stream[method](ctx, wire(req), func(m proto.Message) error { return take(wire(m)) })
}

// silent is a node that never answers a List, and whose other calls have run
// into their deadline at once, to save the time.
type silent struct{ Service }

func (silent) List(ctx context.Context, _ *ListRequest, _ func(*ListReply) error) error {
	<-ctx.Done()
	return ctx.Err()
}

func (silent) Signal(context.Context, *SignalRequest) (*ActReply, error) {
	return nil, context.DeadlineExceeded
}

func (silent) Loads(context.Context, *LoadsRequest) (*LoadMessage, error) {
	return nil, context.DeadlineExceeded
}

func newNode(t testing.TB, n id.Node) *Node {
	t.Helper()
	node, err := NewNode("/proc", n, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Close() })
	return node
}

// start runs a local side on node 1, with nodes 2 and 3 beside it, and more
// services of the test's own.
func start(t testing.TB, more map[id.Node]Service) (dial func() *api.Client) {
	t.Helper()
	f := &fakeCluster{self: 1, nodes: []id.Node{1}, there: map[id.Node]*fakeNode{}}
	servers := map[id.Node]Service{2: newNode(t, 2), 3: newNode(t, 3)}
	for n, s := range more {
		servers[n] = s
	}
	for n, service := range servers {
		f.there[n] = newFakeNode(service)
		f.nodes = append(f.nodes, n)
	}
	slices.Sort(f.nodes)

	dir, err := os.MkdirTemp("", "ssi") // t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(path, 0o666)); err != nil {
		t.Fatal(err)
	}
	srv := api.NewServer(slog.New(slog.DiscardHandler))
	NewLocal(newNode(t, 1), f).Register(srv)
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); _ = l.Close(); <-served })
	t.Setenv(api.SocketEnv, path)
	return func() *api.Client {
		c, err := api.Dial(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func list(t testing.TB, c *api.Client, req api.ListProcesses) (ps []api.Process, loads map[id.Node]api.Load, failed map[id.Node]string) {
	t.Helper()
	loads, failed = map[id.Node]api.Load{}, map[id.Node]string{}
	err := c.Stream(testContext(t), api.ProcessList, req, func(raw json.RawMessage) error {
		var b api.ProcessBatch
		if err := json.Unmarshal(raw, &b); err != nil {
			return err
		}
		ps = append(ps, b.Processes...)
		if b.Load != nil {
			loads[b.Node] = *b.Load
		}
		if b.Error != "" {
			failed[b.Node] = b.Error
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return ps, loads, failed
}

// sleeper is a child of this test, with arguments of its own, as user uid.
func sleeper(t testing.TB, uid uint32) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sleep", "1000", "2000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	// Start returns in the middle of execve(2), when the process has no memory yet.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if fields[0] == "S" && fields[21] != "0" { // state and rss of proc_pid_stat(5)
			return cmd
		}
		if time.Now().After(deadline) {
			t.Fatalf("sleep does not sleep: %s", b)
		}
	}
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it starts processes of several users")
	}
}

func TestListAllNodes(t *testing.T) {
	needRoot(t)
	dial := start(t, nil)
	cmd := sleeper(t, 4242)
	pid := id.PID(cmd.Process.Pid)
	ps, loads, failed := list(t, dial(), api.ListProcesses{})
	if len(failed) != 0 || len(loads) != 3 {
		t.Fatalf("loads %v, failed %v", loads, failed)
	}
	found := map[id.Node]api.Process{}
	last := map[id.Node]id.PID{}
	for _, p := range ps {
		if p.PID == pid {
			found[p.Node] = p
		}
		if p.PID <= last[p.Node] {
			t.Errorf("node %d: PID %d after %d", p.Node, p.PID, last[p.Node])
		}
		last[p.Node] = p.PID
	}
	if len(found) != 3 {
		t.Fatalf("process %d is on %d nodes of 3", pid, len(found))
	}
	for n, p := range found {
		if p.Comm != "sleep" || !slices.Equal(p.Args, []string{"/bin/sleep", "1000", "2000"}) || p.UID != 4242 || p.EGID != 4242 ||
			p.PPID != id.PID(os.Getpid()) || p.PGID != pid || !strings.Contains("RSD", p.State) || p.RSS == 0 || p.VSize < p.RSS || p.Threads != 1 || p.StartTicks == 0 {
			t.Errorf("node %d: %+v", n, p)
		}
		if d := time.Since(time.UnixMilli(p.Start)); d < 0 || d > time.Minute {
			t.Errorf("node %d: it started %v ago", n, d)
		}
	}
}

func TestListSome(t *testing.T) {
	dial := start(t, nil)
	self := id.PID(os.Getpid())
	nodes := func(ps []api.Process) (out []id.Node) {
		for _, p := range ps {
			out = append(out, p.Node)
		}
		slices.Sort(out)
		return out
	}
	ps, _, _ := list(t, dial(), api.ListProcesses{PIDs: []id.PID{self, self, 4194303}})
	if got := nodes(ps); !slices.Equal(got, []id.Node{1, 2, 3}) && self.Home() == 0 {
		t.Errorf("a node-local PID was found on %v", got)
	}
	ps, _, _ = list(t, dial(), api.ListProcesses{PIDs: []id.PID{self}, Node: 2})
	if got := nodes(ps); !slices.Equal(got, []id.Node{2}) {
		t.Errorf("--node 2: found on %v", got)
	}
	ps, _, _ = list(t, dial(), api.ListProcesses{PIDs: []id.PID{self}, Local: true, Node: 3})
	if got := nodes(ps); !slices.Equal(got, []id.Node{1}) {
		t.Errorf("local: found on %v", got)
	}
	tid := id.PID(otherThread(t))
	if ps, _, _ = list(t, dial(), api.ListProcesses{PIDs: []id.PID{tid}}); len(ps) != 0 {
		t.Errorf("thread %d is listed as a process: %+v", tid, ps)
	}
	err := dial().Stream(testContext(t), api.ProcessList, api.ListProcesses{Node: 9}, func(json.RawMessage) error { return nil })
	if !errno.Is(err, errno.Unavailable) || !strings.Contains(err.Error(), "node 9 is not UP") {
		t.Errorf("a node that is not UP: %v", err)
	}
	err = dial().Stream(testContext(t), api.ProcessList, api.ListProcesses{PIDs: make([]id.PID, api.MaxPIDs+1)}, func(json.RawMessage) error { return nil })
	if !errno.Is(err, errno.Invalid) {
		t.Errorf("too many PIDs: %v", err)
	}
}

// otherThread is the ID of a thread of this process that is not the main one; the
// runtime always has some. Their numbers may lie below that of the process.
func otherThread(t *testing.T) int {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if tid, err := strconv.Atoi(task.Name()); err == nil && tid != os.Getpid() {
			return tid
		}
	}
	t.Fatalf("no other thread: %v", tasks)
	return 0
}

func TestHomes(t *testing.T) {
	all := []id.Node{1, 2, 3}
	for _, c := range []struct {
		pids []id.PID
		want []id.Node
	}{
		{nil, all}, {[]id.PID{1}, all}, {[]id.PID{2<<15 + 5}, []id.Node{2}}, {[]id.PID{2<<15 + 5, 3 << 15}, []id.Node{2, 3}},
		{[]id.PID{9 << 15}, []id.Node{}}, {[]id.PID{2 << 15, -4}, all}, {[]id.PID{1 << 30}, all},
	} {
		if got := homes(all, c.pids); !slices.Equal(got, c.want) {
			t.Errorf("%d: %v, want %v", c.pids, got, c.want)
		}
	}
}

func TestOneNodeSilent(t *testing.T) {
	dial := start(t, map[id.Node]Service{4: silent{}})
	ps, loads, failed := list(t, dial(), api.ListProcesses{Timeout: 3000})
	if len(loads) != 3 || len(ps) == 0 {
		t.Errorf("%d processes, loads of %d nodes, want 3", len(ps), len(loads))
	}
	if want := "node 4: did not answer within 3s"; len(failed) != 1 || failed[4] != want {
		t.Errorf("failed: %q, want %q", failed, want)
	}
	var l api.Loads
	if err := dial().Call(testContext(t), api.ProcessLoads, api.ListLoads{}, &l); err != nil {
		t.Fatal(err)
	}
	if len(l.Loads) != 4 || l.Loads[3].Error == "" || l.Loads[0].Error != "" || l.Loads[2].Node != 3 {
		t.Errorf("%+v", l)
	}
	if best, ok := l.Best(); !ok || best == 4 {
		t.Errorf("best is %d, %v", best, ok)
	}
	var r api.ProcessResults
	req := api.SignalProcesses{Targets: []api.ProcessTarget{{PID: 4<<15 + 5}, {PID: id.PID(os.Getpid()), Node: 2}}}
	if err := dial().Call(testContext(t), api.ProcessSignal, req, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Results) != 2 || !strings.Contains(r.Results[0].Error, "did not answer") || r.Results[1].Error != "" || r.Results[1].Errno != 0 {
		t.Errorf("%+v", r)
	}
}

func TestWhere(t *testing.T) {
	dial := start(t, nil)
	self := id.PID(os.Getpid())
	for _, c := range []struct {
		req  api.WhereProcess
		node id.Node
		kind errno.Kind
	}{
		{api.WhereProcess{PID: self, Node: 3}, 3, 0},
		{api.WhereProcess{PID: 1}, 1, 0},
		{api.WhereProcess{PID: 2<<15 + 32767, Node: 2}, 0, errno.NotFound},
		{api.WhereProcess{PID: 9 << 15}, 0, errno.Unavailable},
		{api.WhereProcess{PID: -5}, 0, errno.Invalid},
	} {
		var p api.ProcessPlace
		err := dial().Call(testContext(t), api.ProcessWhere, c.req, &p)
		if c.kind != 0 && !errno.Is(err, c.kind) || c.kind == 0 && (err != nil || p.Node != c.node || p.Home != c.req.PID.Home()) {
			t.Errorf("%+v: %+v, %v", c.req, p, err)
		}
	}
}

func TestTooManyScans(t *testing.T) {
	n := newNode(t, 2)
	var held []*scratch
	for range maxScans {
		s, err := n.reader.get()
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, s)
	}
	if err := n.reader.List(nil, false, func(*api.Process) error { return nil }); !errno.Is(err, errno.Full) {
		t.Errorf("one listing too many: %v, want full", err)
	}
	for _, s := range held {
		n.reader.put(s)
	}
	if err := n.reader.List([]id.PID{1}, true, func(*api.Process) error { return nil }); err != nil {
		t.Error(err)
	}
}

func TestLoadAverages(t *testing.T) {
	at := time.Unix(1000, 0)
	m := &loadMeter{last: at}
	for i, c := range []struct {
		active int
		after  time.Duration
		recent float64
		avg    [3]float64
	}{
		{4, 5 * time.Second, 4 * 0.63212, [3]float64{4 * 0.07996, 4 * 0.01653, 4 * 0.00554}},
		{0, time.Minute, 0, [3]float64{4 * 0.07996 * 0.36788, 4 * 0.01653 * 0.81873, 4 * 0.00554 * 0.93551}},
		{2, 24 * time.Hour, 2, [3]float64{2, 2, 2}},
		{9, -time.Hour, 2, [3]float64{2, 2, 2}}, // a clock set back changes nothing
	} {
		at = at.Add(c.after)
		m.average(c.active, 7, at)
		near := func(a, b float64) bool { return a-b < 2e-3 && b-a < 2e-3 }
		if !near(m.recent, c.recent) || !near(m.avg[0], c.avg[0]) || !near(m.avg[1], c.avg[1]) || !near(m.avg[2], c.avg[2]) {
			t.Errorf("step %d: recent %v, averages %v, want %v, %v", i, m.recent, m.avg, c.recent, c.avg)
		}
	}
}

// spin is a child that never sleeps.
func spin(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", "echo; while :; do :; done")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func TestCountSeesARunningProcess(t *testing.T) {
	r := newNode(t, 1).reader
	spin(t)
	for _, own := range []bool{true, false} { // as in a lab, as on a whole machine
		m := &loadMeter{r: r, root: "/proc", own: own, last: time.Now()}
		m.sample(m.last.Add(time.Hour))
		l, err := m.read()
		if err != nil || l.Recent < 0.9 || l.Tasks < 1 || l.Value < 90/l.CPUs || m.own && l.Average[2] < 0.9 {
			t.Errorf("own %v: %+v, %v", m.own, l, err)
		}
	}
}

func TestReason(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{context.DeadlineExceeded, "node 3: did not answer within 1s"},
		{errno.New(errno.Timeout, "x", 3, "y"), "node 3: did not answer within 1s"},
		{errno.New(errno.Unavailable, "ics", 3, "left the cluster: power"), "ics: node 3: left the cluster: power"},
		{errors.New("a\nb"), "node 3: a; b"},
	} {
		if got := reason(3, time.Second, c.err); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}
