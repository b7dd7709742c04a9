package pid1

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ssi/internal/keeper"
	"ssi/internal/proc"
)

// The role spawn leaves files, the node role is told and takes them, also after
// both were started anew.
func TestFilesOfOtherRoles(t *testing.T) {
	defer goleak.VerifyNone(t)
	log := slog.New(slog.DiscardHandler)
	s, r := &store{files: map[string]*os.File{}}, &ring{more: make(chan struct{}, 1)}
	defer s.close()
	requests := make(chan request, 1)
	open := func(may rights) (*keeper.Client, func()) {
		l, theirs, err := newLink(log, s, r, requests, may)
		if err != nil {
			t.Fatal(err)
		}
		c, err := keeper.New(theirs, log, func(proc.Exit) {})
		if err != nil {
			t.Fatal(err)
		}
		return c, func() {
			_ = c.Close()
			l.close()
		}
	}
	node, endNode := open(runsNode)
	spawn, endSpawn := open(keepsFiles)
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	put := func(names ...string) {
		t.Helper()
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, name := range names {
			if err := spawn.Put(name, f); err != nil {
				t.Fatal(err)
			}
		}
	}
	put("gate.b", "gate.a", "view", "api")
	select {
	case <-node.Kept():
	case <-time.After(10 * time.Second):
		t.Fatal("the node role is not told")
	}
	want := []string{"gate.a", "gate.b"}
	if names, err := node.Names("gate."); err != nil || !slices.Equal(names, want) {
		t.Errorf("%v, %v", names, err)
	}
	if err := spawn.RestartSpawn(); err == nil {
		t.Error("the role spawn may restart itself")
	}
	if err := spawn.Shutdown(keeper.Halt); err == nil {
		t.Error("the role spawn may end the machine")
	}
	if len(requests) > 0 {
		t.Error("its request was passed on")
	}
	endSpawn()
	endNode()
	node, endNode = open(runsNode)
	defer endNode()
	spawn, endSpawn = open(keepsFiles)
	defer endSpawn()
	if names, err := spawn.Names(""); err != nil || !slices.Equal(names, []string{"api", "gate.a", "gate.b", "view"}) {
		t.Errorf("%v, %v", names, err)
	}
	f, err := node.Take("gate.a")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 10)
	if n, _ := f.ReadAt(b, 0); string(b[:n]) != "kept" {
		t.Errorf("%q", b[:n])
	}
	if err := node.Drop("gate.a"); err != nil {
		t.Error(err)
	}
	if _, err := node.Take("gate.a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if names, err := node.Names("gate."); err != nil || !slices.Equal(names, want[1:]) {
		t.Errorf("%v, %v", names, err)
	}
}
