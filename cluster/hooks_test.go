package cluster

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
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
	writeHook(t, dir, "10-first", `echo "1 $SSI_NODE" >>`+out+"; exit 3", 0o755)
	writeHook(t, dir, "30-not-executable", `echo 3 >>`+out, 0o644)
	writeHook(t, dir, "40.dpkg-old", `echo 4 >>`+out, 0o755)
	err := runHooks(t.Context(), slog.New(slog.DiscardHandler), dir, hookEvent{node: 7, name: "n7", epoch: 12, cause: "power cut"})
	if err == nil || !strings.Contains(err.Error(), "10-first for node 7: exit status 3") {
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
