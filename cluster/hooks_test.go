package cluster

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

func writeHook(t *testing.T, dir, name, body string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+body), mode); err != nil {
		t.Fatal(err)
	}
}

func TestHooks(t *testing.T) {
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	writeHook(t, dir, "20-second", `echo "2 $1 $SSI_NODENAME $SSI_TRANSITION $SSI_CAUSE" >>`+out, 0o755)
	writeHook(t, dir, "10-first", `echo "1 $SSI_NODE" >>`+out+"; echo oops >&2; exit 3", 0o755)
	writeHook(t, dir, "30-not-executable", `echo 3 >>`+out, 0o644)
	writeHook(t, dir, "40.dpkg-old", `echo 4 >>`+out, 0o755)
	err := runHooks(t.Context(), slog.New(slog.DiscardHandler), dir, hookEvent{node: 7, name: "n7", epoch: 12, cause: "power cut"})
	if err == nil || !strings.Contains(err.Error(), `10-first for node 7: exit status 3; it said "oops"`) {
		t.Errorf("err = %v", err)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if want := "1 7\n2 7 n7 12 power cut\n"; string(got) != want {
		t.Errorf("hooks wrote %q, want %q", got, want)
	}
}

func TestHooksMissingDirectory(t *testing.T) {
	if err := runHooks(t.Context(), slog.New(slog.DiscardHandler), filepath.Join(t.TempDir(), "none"), hookEvent{}); err != nil {
		t.Error(err)
	}
}

// TestHookEnds: a hook that goes on when its time is over is killed with all that it
// started, and its output is bounded.
func TestHookEnds(t *testing.T) {
	dir := t.TempDir()
	pid := filepath.Join(t.TempDir(), "pid")
	writeHook(t, dir, "10-endless", "yes | head -c 100000; sleep 1000 & echo $! >"+pid+"; wait", 0o755)
	writeHook(t, dir, "20-never", "exit 9", 0o755)
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		until(t, "the hook", func() bool { b, _ := os.ReadFile(pid); return len(b) > 0 })
		cancel(errors.New("init moved"))
	}()
	err := runHooks(ctx, slog.New(slog.DiscardHandler), dir, hookEvent{node: 7})
	if err == nil || !strings.Contains(err.Error(), "init moved") || strings.Contains(err.Error(), "20-never") || len(err.Error()) > 4*hookOutput {
		t.Errorf("err = %.200v", err)
	}
	b, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the end of what it started", func() bool {
		stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(child), "stat"))
		return err != nil || strings.Contains(string(stat), ") Z ") // nobody may have waited for it yet
	})
}

// TestHooksInTurn: the hooks for the death of a node wait for those for its coming,
// and a node that is gone again gets none of the latter.
func TestHooksInTurn(t *testing.T) {
	etc, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	for _, kind := range []string{"nodeup.d", "nodedown.d"} {
		if err := os.Mkdir(filepath.Join(etc, kind), 0o755); err != nil {
			t.Fatal(err)
		}
		writeHook(t, filepath.Join(etc, kind), "10", "echo begin "+kind+" >>"+out+"; [ $1 = 8 ] && while ! [ -e "+out+".go ]; do sleep 0.01; done; echo end "+kind+" >>"+out, 0o755)
	}
	c := &Cluster{log: slog.New(slog.DiscardHandler), cfg: Config{HooksDir: etc}, hooking: make(chan struct{}, 1)}
	wrote := func() string { b, _ := os.ReadFile(out); return string(b) }
	var wg sync.WaitGroup
	wg.Go(func() { c.hooks(t.Context(), "nodeup.d", hookEvent{node: 8}, func() bool { return true }) })
	until(t, "the first hook", func() bool { return wrote() != "" })
	wg.Go(func() { c.hooks(t.Context(), "nodedown.d", hookEvent{node: 9}, nil) })
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	c.hooks(ended, "nodedown.d", hookEvent{node: 9}, nil) // does not wait for its turn when it is too late
	if err := os.WriteFile(out+".go", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	c.hooks(t.Context(), "nodeup.d", hookEvent{node: 9}, func() bool { return false })
	if got, want := wrote(), "begin nodeup.d\nend nodeup.d\nbegin nodedown.d\nend nodedown.d\n"; got != want {
		t.Errorf("the hooks wrote %q, want %q", got, want)
	}
}
