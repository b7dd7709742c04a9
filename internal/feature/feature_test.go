package feature

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func find(t *testing.T, results []Result, name string) Result {
	t.Helper()
	for _, r := range results {
		if r.Name == name {
			return r
		}
	}
	t.Fatalf("no result %q", name)
	return Result{}
}

// Everything that is not ok says what to do, and one result has one line.
func TestProbe(t *testing.T) {
	dir := t.TempDir()
	results := Probe(t.Context(), Options{Listen: "127.0.0.1:0", StateDir: filepath.Join(dir, "not", "yet")})
	seen := map[string]bool{}
	for _, r := range results {
		if r.Area == "" || r.Name == "" || r.Text == "" || strings.Contains(r.Text+r.Todo, "\n") {
			t.Errorf("%+v", r)
		}
		if r.Level != OK && r.Todo == "" {
			t.Errorf("%s %s is %s and says nothing to do", r.Area, r.Name, r.Level)
		}
		if seen[r.Area+r.Name] {
			t.Errorf("%s %s is examined twice", r.Area, r.Name)
		}
		seen[r.Area+r.Name] = true
	}
	if r := find(t, results, "sync"); r.Level == Missing {
		t.Errorf("%+v", r)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left in the state directory: %v, %v", left, err)
	}
}

// The probes leave the namespaces of this process alone.
func TestProbeLeavesNoTrace(t *testing.T) {
	links := func() string {
		var s []string
		for _, ns := range []string{"pid", "mnt", "net", "ipc", "uts", "cgroup"} {
			l, err := os.Readlink("/proc/self/ns/" + ns)
			if err != nil {
				t.Fatal(err)
			}
			s = append(s, l)
		}
		return strings.Join(s, " ")
	}
	before := links()
	ifs, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	Probe(t.Context(), Options{Listen: "127.0.0.1:0", StateDir: t.TempDir()})
	if after := links(); after != before {
		t.Errorf("namespaces: %s, before: %s", after, before)
	}
	now, err := net.Interfaces()
	if err != nil || len(now) != len(ifs) {
		t.Errorf("interfaces: %v, before: %v (%v)", now, ifs, err)
	}
}

func TestProbeStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if results := Probe(ctx, Options{}); len(results) > 0 {
		t.Errorf("%v", results)
	}
}

func TestOutcome(t *testing.T) {
	want := Result{Required: true}
	for _, c := range []struct {
		err    error
		level  Level
		failed bool
	}{
		{nil, OK, false},
		{fmt.Errorf("fsopen: %w", unix.EPERM), Warn, false},
		{fmt.Errorf("open: %w", os.ErrPermission), Warn, false},
		{fmt.Errorf("clone3: %w", unix.ENOSYS), Missing, true},
		{errors.New("file system fuse: no such device"), Missing, true},
	} {
		r := outcome(want, "works", c.err, "do this")
		if r.Level != c.level || r.Failed() != c.failed {
			t.Errorf("%v: %+v", c.err, r)
		}
	}
	if r := outcome(Result{}, "", unix.ENOSYS, ""); r.Failed() {
		t.Error("something optional fails the machine")
	}
}

func TestPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	opts := Options{Listen: l.Addr().String()}
	if r := port(opts); r.Level != Missing || !strings.Contains(r.Text, "used by another program") {
		t.Errorf("a port in use: %+v", r)
	}
	opts.Running = true
	if r := port(opts); r.Level != OK {
		t.Errorf("our own port: %+v", r)
	}
	if r := port(Options{Listen: "192.0.2.1:1985"}); r.Level != Missing {
		t.Errorf("an address of another machine: %+v", r)
	}
}

func TestClocks(t *testing.T) {
	r := offsets([]Clock{{"node2", time.Millisecond}, {"node3", -time.Hour}, {"node4", time.Second}})
	if r.Level != Warn || !strings.Contains(r.Text, "node3 is farthest, by -1h0m0s") {
		t.Errorf("%+v", r)
	}
	if r := offsets([]Clock{{"node2", time.Millisecond}}); r.Level != OK {
		t.Errorf("%+v", r)
	}
	if r := year(time.Date(1970, 1, 1, 0, 0, 5, 0, time.UTC)); r.Level != Warn {
		t.Errorf("%+v", r)
	}
}

func TestFilesystem(t *testing.T) {
	err := filesystem("nosuchfs")
	if err == nil {
		t.Fatal("an unknown file system can be mounted")
	}
	if errors.Is(err, unix.EPERM) {
		t.Skipf("not root, so no file system can be tried: %v", err)
	}
	if r := outcome(Result{Required: true}, "", err, "modprobe"); !r.Failed() {
		t.Errorf("%+v", r)
	}
}

func TestDiskWithoutPermission(t *testing.T) {
	if r := latency("/proc"); r.Level == OK {
		t.Errorf("files can be made in /proc: %+v", r)
	}
	if r := free("/proc", "/proc/x"); r.Level != Missing {
		t.Errorf("there is room in /proc: %+v", r)
	}
}
