package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ssi/cluster/core"
)

// TestFullDisk: a write to a full disk waits for room, and the fence knows why.
func TestFullDisk(t *testing.T) {
	var j journal
	l := newTold()
	c := &Cluster{log: j.logger(), cfg: Config{Dir: "/state"}, fence: newFence(l.serving)}
	for _, full := range []error{unix.ENOSPC, &os.PathError{Op: "write", Path: "/state/x", Err: unix.EDQUOT}} {
		tries := 0
		err := c.patiently(t.Context(), "write", func() error {
			if tries++; tries < 3 {
				return full
			}
			return nil
		})
		if err != nil || tries != 3 {
			t.Errorf("%v: %d tries, %v", full, tries, err)
		}
	}
	if n := strings.Count(j.String(), "free some space"); n != 2 {
		t.Errorf("the advice came %d times:\n%s", n, j.String())
	}
	if n := strings.Count(j.String(), "room again"); n != 2 {
		t.Errorf("the good news came %d times", n)
	}

	tries := 0
	if err := c.patiently(t.Context(), "write", func() error { tries++; return unix.EIO }); !errors.Is(err, unix.EIO) || tries != 1 {
		t.Errorf("a broken disk: %d tries, %v", tries, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := c.patiently(ctx, "write", func() error { cancel(); return unix.ENOSPC })
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a daemon that stops: %v", err)
	}

	// The lease runs out meanwhile: the fence says why.
	c.fence.set(granted(0))
	c.fence.stuck("the disk under /state is full: free some space")
	c.fence.told = nil
	c.fence.mu.Lock()
	c.fence.apply(boottime())
	c.fence.mu.Unlock()
	if s, _ := l.last(); s.OK || !strings.Contains(s.Cause, "free some space") {
		t.Errorf("serving: %+v", s)
	}
}

// TestDamage: a node whose files are damaged says which, and what to do, and does
// not start.
func TestDamage(t *testing.T) {
	t.Parallel()
	m, _ := found(t, "fast", 0)
	m.founded()
	m.halt()

	segments, err := filepath.Glob(filepath.Join(m.dir, dirRaft, "r-*", "log-*"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("segments %v, %v", segments, err)
	}
	good := damage(t, segments[0])
	m.start()
	err = m.ended()
	if err == nil || !strings.Contains(err.Error(), filepath.Base(segments[0])) || !strings.Contains(err.Error(), m.dir) || !strings.Contains(err.Error(), "ssi cluster rejoin") {
		t.Errorf("a damaged log: %v", err)
	}
	// The log is free for what the advice says.
	aside, err := PutAside(m.dir)
	if err != nil || !exists(aside) {
		t.Fatalf("put aside: %q, %v", aside, err)
	}
	// Without it the node does not found its cluster a second time.
	m.start()
	s := await(t, "advice", m.c.Status(), func(s core.Status) bool { return s.Problem != "" })
	if s.Serving || s.RaftID != 0 {
		t.Errorf("without its log the node is %+v", s)
	}
	m.halt()
	if err := os.Rename(aside, filepath.Join(m.dir, dirRaft)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(segments[0], good, 0o600); err != nil {
		t.Fatal(err)
	}
	m.start()
	m.serves()
	if again, err := PutAside(m.dir); !errors.Is(err, unix.EBUSY) {
		t.Errorf("put aside under a daemon: %q, %v", again, err)
	}
	m.halt()

	for _, name := range []string{"node.key", "node.crt", "ca.crt", fileCluster} {
		path := filepath.Join(m.dir, name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for what, change := range map[string]func() error{
			"missing": func() error { return os.Remove(path) },
			"damaged": func() error { return os.WriteFile(path, good[:len(good)/2], 0o600) },
		} {
			if err := change(); err != nil {
				t.Fatal(err)
			}
			_, err := New(m.config())
			if err == nil || !strings.Contains(err.Error(), m.dir) {
				t.Errorf("%s %s: %v", what, name, err)
			}
			if what == "missing" && name == "node.key" && !strings.Contains(err.Error(), "join anew") {
				t.Errorf("%s %s: no advice: %v", what, name, err)
			}
			if err := os.WriteFile(path, good, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}

	// Files of another node do not go with this one's.
	ident, err := ReadIdentity(m.dir)
	if err != nil {
		t.Fatal(err)
	}
	ident.Node = 2
	if err := writeJSON(filepath.Join(m.dir, fileCluster), 0o644, ident); err != nil {
		t.Fatal(err)
	}
	if _, err := New(m.config()); err == nil || !strings.Contains(err.Error(), "do not belong together") {
		t.Errorf("another number: %v", err)
	}
}

// damage turns some bits in the middle of what is used of a file, and returns
// what was there.
func damage(t *testing.T, path string) []byte {
	t.Helper()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := append([]byte(nil), good...)
	bad[512+20] ^= 0x55
	if err := os.WriteFile(path, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	return good
}
