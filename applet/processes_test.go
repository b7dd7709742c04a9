package applet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/vproc/proctab"
)

// processDaemon is a node daemon that knows canned processes.
type processDaemon struct {
	mu      sync.Mutex
	lists   []api.ListProcesses // what it was asked
	signals []api.SignalProcesses
	renices []api.ReniceProcesses
	batches []api.ProcessBatch
}

// serve serves handlers on a socket of its own and returns a way to call it.
func serve(t testing.TB, register func(*api.Server)) func(context.Context) (*api.Client, error) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ssi")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	s := api.NewServer(slog.New(slog.DiscardHandler))
	register(s)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close(); _ = l.Close(); <-done; _ = os.RemoveAll(dir) })
	t.Setenv(api.SocketEnv, path)
	return api.Dial
}

func (d *processDaemon) register(s *api.Server) {
	s.Handle(api.ProcessList, func(_ context.Context, c *api.Call) error {
		var req api.ListProcesses
		if err := c.Params(&req); err != nil {
			return err
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.lists = append(d.lists, req)
		for _, b := range d.batches {
			if req.Node != 0 && b.Node != req.Node || req.Local && b.Node != 1 {
				continue
			}
			if err := c.Send(b); err != nil {
				return err
			}
		}
		return nil
	})
	act := func(targets []api.ProcessTarget) api.ProcessResults {
		var r api.ProcessResults
		for _, t := range targets {
			res := api.ProcessResult{Node: max(t.Node, max(t.PID, -t.PID).Home(), 1), PID: t.PID}
			switch t.PID {
			case 70404:
				res.Errno = syscall.ESRCH
			case 70001:
				res.Errno = syscall.EPERM
			case 140000:
				res.Error = "node 4: did not answer within 2s"
			}
			r.Results = append(r.Results, res)
		}
		return r
	}
	s.Handle(api.ProcessSignal, func(_ context.Context, c *api.Call) error {
		var req api.SignalProcesses
		if err := c.Params(&req); err != nil {
			return err
		}
		d.mu.Lock()
		d.signals = append(d.signals, req)
		d.mu.Unlock()
		return c.Reply(act(req.Targets))
	})
	s.Handle(api.ProcessRenice, func(_ context.Context, c *api.Call) error {
		var req api.ReniceProcesses
		if err := c.Params(&req); err != nil {
			return err
		}
		d.mu.Lock()
		d.renices = append(d.renices, req)
		d.mu.Unlock()
		return c.Reply(act(req.Targets))
	})
	s.Handle(api.ProcessWhere, func(_ context.Context, c *api.Call) error {
		var req api.WhereProcess
		if err := c.Params(&req); err != nil {
			return err
		}
		if req.PID == 70404 {
			return errno.New(errno.NotFound, "where", 0, "no process 70404 on node 2, where it would be")
		}
		return c.Reply(api.ProcessPlace{PID: req.PID, Node: max(req.Node, req.PID.Home(), 1), Home: req.PID.Home()})
	})
	s.Handle(api.ProcessLoads, func(_ context.Context, c *api.Call) error {
		var req api.ListLoads
		if err := c.Params(&req); err != nil {
			return err
		}
		all := api.Loads{Loads: []api.Load{{Node: 1, Value: 50}, {Node: 2, Value: 7}, {Node: 4, Error: "node 4: did not answer within 2s"}}}
		if req.Node != 0 {
			all.Loads = all.Loads[req.Node-1 : req.Node]
		}
		return c.Reply(all)
	})
}

// testNow is when the canned processes are looked at.
func testNow() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }

// cannedProcesses is two nodes that answer and one that does not.
func cannedProcesses() []api.ProcessBatch {
	ago := func(d time.Duration) (start, age int64) {
		return testNow().Add(-d).UnixMilli(), d.Milliseconds()
	}
	proc := func(node id.Node, pid, ppid id.PID, age time.Duration, comm string, args ...string) api.Process {
		start, ms := ago(age)
		return api.Process{Node: node, PID: pid, PPID: ppid, PGID: pid, SID: pid, TPGID: -1, State: "S", Comm: comm, Args: args, Start: start, Age: ms,
			Priority: 20, Threads: 1, StartTicks: uint64(pid), VSize: 8 << 20, RSS: 2 << 20}
	}
	init1 := proc(1, 1, 0, 48*time.Hour, "ssi", "/sbin/ssi", "init")
	sh := proc(1, 40000, 1, 2*time.Hour, "bash", "-bash")
	sh.TTY, sh.TTYNr, sh.TPGID, sh.UserTime = "pts/0", 0x8800, 40001, 1500
	vi := proc(1, 40001, 40000, time.Hour, "vi", "vi", "a\x1bb")
	vi.TTY, vi.TTYNr, vi.SID, vi.TPGID, vi.UID, vi.EUID, vi.Nice = "pts/0", 0x8800, 40000, 40001, 4294967, 4294967, 5
	kthread := proc(2, 2, 0, 48*time.Hour, "kthreadd")
	kthread.Kernel, kthread.VSize, kthread.RSS = true, 0, 0
	hog := proc(2, 70000, 1, 100*time.Second, "hog", "/usr/bin/hog", "--all")
	hog.State, hog.UserTime, hog.SystemTime, hog.RSS = "R", 80000, 10000, 512<<20
	zombie := proc(2, 70001, 70000, time.Minute, "gone")
	zombie.State = "Z"
	return []api.ProcessBatch{
		{Node: 2, Processes: []api.Process{kthread, hog}},
		{Node: 1, Processes: []api.Process{init1, sh, vi}, Load: &api.Load{Node: 1, CPUs: 2, MemTotal: 1 << 30, MemAvailable: 1 << 29, CPUTotal: 1000, CPUIdle: 750, Tasks: 3}},
		{Node: 2, Processes: []api.Process{zombie}, Load: &api.Load{Node: 2, CPUs: 4, MemTotal: 1 << 30, MemAvailable: 1 << 28, CPUTotal: 1000, Average: [3]float64{1, 2, 3}}},
		{Node: 4, Error: "node 4: did not answer within 2s"},
	}
}

// runCommand runs one command line against dial.
func runCommand(dial func(context.Context) (*api.Client, error), words ...string) (stdout, stderr string, status int) {
	var out, errOut bytes.Buffer
	env := &Env{Args: words, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errOut, Getenv: func(string) string { return "" }, Version: "test", Now: testNow, Dial: dial}
	status = Main(env, processEntries())
	return out.String(), errOut.String(), status
}

func startDaemon(t testing.TB) (*processDaemon, func(...string) (string, string, int)) {
	d := &processDaemon{batches: cannedProcesses()}
	dial := serve(t, d.register)
	return d, func(words ...string) (string, string, int) { return runCommand(dial, words...) }
}

// oneNode is a cluster of this machine.
type oneNodeCluster struct{}

func (oneNodeCluster) Self() id.Node    { return 1 }
func (oneNodeCluster) Nodes() []id.Node { return []id.Node{1} }
func (oneNodeCluster) Call(_ context.Context, n id.Node, _ string, _, _ proto.Message) error {
	return fmt.Errorf("no node %d", n)
}
func (oneNodeCluster) Stream(_ context.Context, n id.Node, _ string, _ proto.Message, _ func([]byte) error) error {
	return fmt.Errorf("no node %d", n)
}

// realDaemon serves the processes of this machine.
func realDaemon(t testing.TB) func(context.Context) (*api.Client, error) {
	t.Helper()
	n, err := proctab.NewNode("/proc", 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return serve(t, func(s *api.Server) { proctab.NewLocal(n, oneNodeCluster{}).Register(s) })
}

func TestLoadsAndWhere(t *testing.T) {
	_, run := startDaemon(t)
	for _, c := range []struct {
		words       string
		out, errOut string
		status      int
	}{
		{"loads", "1: 50\n2: 7\n", "loads: node 4: did not answer within 2s\n", 1},
		{"loads -n 2", "2: 7\n", "", 0},
		{"loads -n x1", "", "no ssi", 1},
		{"loads -n 200", "", "not a node number", 2},
		{"loads --timeout never", "", "not a duration", 2},
		{"loads surplus", "", "too much", 2},
		{"where_pid 70000", "2\n", "", 0},
		{"where_pid 70404", "", "where_pid: no process 70404 on node 2, where it would be\n", 1},
		{"where_pid 5 --node 3", "3\n", "", 0},
		{"where_pid x", "", "not a process ID", 2},
		{"where_pid 1,2", "", "not a process ID", 2},
	} {
		out, errOut, status := run(strings.Fields(c.words)...)
		if c.words == "loads -n x1" { // a name: the canned daemon knows no names
			if status != 1 || out != "" {
				t.Errorf("%s: %q %q %d", c.words, out, errOut, status)
			}
			continue
		}
		if out != c.out || !strings.Contains(errOut, c.errOut) || status != c.status {
			t.Errorf("%s: %q %q %d", c.words, out, errOut, status)
		}
	}
	out, _, _ := run("loads", "--json")
	var l api.Loads
	if err := json.Unmarshal([]byte(out), &l); err != nil || len(l.Loads) != 3 {
		t.Errorf("loads --json: %v\n%s", err, out)
	}
	out, _, _ = run("where_pid", "--json", "70000")
	var p api.ProcessPlace
	if err := json.Unmarshal([]byte(out), &p); err != nil || p != (api.ProcessPlace{PID: 70000, Node: 2, Home: 2}) {
		t.Errorf("where_pid --json: %v\n%s", err, out)
	}
}
