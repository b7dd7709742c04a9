package test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ssi/internal/api"
	"ssi/internal/id"
	"ssi/lab"
)

// patience bounds every wait of the tests; nothing takes nearly as long on an
// idle machine.
const patience = 60 * time.Second

// binary is the program under test.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Println("skipped: the tests of the whole system need root: sudo make test")
		return 0
	}
	dir, err := os.MkdirTemp("", "ssi-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "ssi")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "ssi")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// cluster is a lab under test.
type cluster struct {
	*lab.Lab
	t *testing.T
}

// start makes a lab of n nodes that are all UP, and voters as far as they get
// to be; it ends with the test, and leaves its consoles in the test's output if
// that failed.
func start(t *testing.T, n int, change ...func(*lab.Options)) *cluster {
	t.Helper()
	o := lab.Options{Name: labName(t), Nodes: n, Binary: binary, Timeout: patience}
	for _, f := range change {
		f(&o)
	}
	l, err := lab.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{l, t}
	t.Cleanup(func() {
		if t.Failed() {
			c.consoles(n)
		}
		if err := l.Close(); err != nil {
			t.Errorf("close the lab: %v", err)
		}
	})
	c.settle(n)
	return c
}

func profile(name string) func(*lab.Options) { return func(o *lab.Options) { o.Profile = name } }

// named lets a test have a second lab.
func named(name string) func(*lab.Options) { return func(o *lab.Options) { o.Name = name + unique() } }

// labName is a name that no other run of these tests on this machine has.
func labName(t *testing.T) string {
	name := strings.NewReplacer("/", "-", "#", "-").Replace(t.Name())
	return name[:min(len(name), 24)] + unique()
}

// unique tells apart two runs of these tests at the same time.
func unique() string { return fmt.Sprintf("-%d", os.Getpid()) }

// settle waits until n nodes are UP and as many of them vote as should.
func (c *cluster) settle(n int) {
	c.t.Helper()
	voters := map[int]int{1: 1, 2: 2}[n]
	if voters == 0 {
		voters = 3
	}
	c.await(1, fmt.Sprintf("%d nodes UP and %d voters", n, voters), func(s *api.ClusterStatus) bool {
		up, vote := 0, 0
		for _, node := range s.Nodes {
			if node.State == api.Up {
				up++
			}
			if node.Role == api.RoleVoter {
				vote++
			}
		}
		return up == n && vote >= voters
	})
}

func (c *cluster) consoles(n int) {
	for i := 1; i <= n; i++ {
		var b strings.Builder
		if err := c.Logs(context.Background(), id.Node(i), false, &b); err != nil {
			c.t.Logf("console of node %d: %v", i, err)
			continue
		}
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		c.t.Logf("console of node %d, the end:\n%s", i, strings.Join(lines[max(0, len(lines)-40):], "\n"))
	}
}

// ctx bounds one step.
func (c *cluster) ctx() context.Context {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	c.t.Cleanup(cancel)
	return ctx
}

// try runs a command at the console of a node, which also works where the node is
// fenced, and returns its output and status.
func (c *cluster) try(n id.Node, args ...string) (string, int) {
	c.t.Helper()
	out, status, err := c.Console(c.ctx(), n, args...)
	if err != nil {
		c.t.Fatalf("node %d: %s: %v\n%s", n, strings.Join(args, " "), err, out)
	}
	return string(out), status
}

// do runs a command that must succeed.
func (c *cluster) do(n id.Node, args ...string) string {
	c.t.Helper()
	out, status := c.try(n, args...)
	if status != 0 {
		c.t.Fatalf("node %d: %s: status %d\n%s", n, strings.Join(args, " "), status, out)
	}
	return out
}

// fails runs a command that must fail with this status and say all of these
// things.
func (c *cluster) fails(n id.Node, status int, says []string, args ...string) {
	c.t.Helper()
	out, got := c.try(n, args...)
	if got != status {
		c.t.Errorf("node %d: %s: status %d, want %d\n%s", n, strings.Join(args, " "), got, status, out)
	}
	for _, s := range says {
		if !strings.Contains(out, s) {
			c.t.Errorf("node %d: %s said %q, which lacks %q", n, strings.Join(args, " "), out, s)
		}
	}
}

// ok fails the test if an operation of the lab did.
func (c *cluster) ok(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// call asks the daemon of a node.
func call[R any](ctx context.Context, c *cluster, n id.Node, method string, params any) (R, error) {
	var r R
	client, err := c.Dial(ctx, n)
	if err != nil {
		return r, err
	}
	defer func() { _ = client.Close() }()
	err = client.Call(ctx, method, params, &r)
	return r, err
}

// await waits until the cluster as node n sees it is as ok wants.
func (c *cluster) await(n id.Node, what string, ok func(*api.ClusterStatus) bool) *api.ClusterStatus {
	c.t.Helper()
	var last api.ClusterStatus
	var lastErr error
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	ctx := c.ctx()
	for {
		s, err := call[api.ClusterStatus](ctx, c, n, api.MethodClusterStatus, api.StatusParams{})
		if err == nil {
			if ok(&s) {
				return &s
			}
			last = s
		} else if ctx.Err() == nil {
			lastErr = err
		}
		select {
		case <-ctx.Done():
			b, _ := json.MarshalIndent(last, "", " ")
			c.t.Fatalf("node %d waited in vain for: %s\nlast error: %v\nlast status: %s", n, what, lastErr, b)
		case <-tick.C:
		}
	}
}

// state waits until node n sees node of in a state.
func (c *cluster) state(n, of id.Node, want api.State) *api.ClusterStatus {
	c.t.Helper()
	return c.await(n, fmt.Sprintf("node %d %s", of, want), func(s *api.ClusterStatus) bool {
		info, ok := s.Find(of)
		return ok && info.State == want
	})
}

// history is all transitions as node n knows them.
func (c *cluster) history(n id.Node) []api.Transition {
	c.t.Helper()
	r, err := call[api.HistoryReply](c.ctx(), c, n, api.MethodClusterHistory, api.HistoryParams{})
	if err != nil {
		c.t.Fatal(err)
	}
	return r.Transitions
}
