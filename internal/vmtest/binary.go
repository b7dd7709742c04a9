package vmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

const keptBinaries = 8

// Binary is the path of ssi, built from the tree of the test. Its content does
// not change while tests run: another build is another file.
func Binary(t testing.TB) string {
	t.Helper()
	dir := cacheDir(t, "binary")
	ctx, cancel := testContext(t)
	defer cancel()
	held, err := lock(ctx, cacheDir(t, "locks"), "binary")
	if err != nil {
		t.Fatalf("build ssi: %v", err)
	}
	defer held.Close()
	// Always to the same file: go build sees that it is up to date.
	last := filepath.Join(cacheDir(t, "build"), "ssi")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", last, "ssi")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build ssi: %v\n%s", err, out)
	}
	hash, err := sum(last)
	if err != nil {
		t.Fatalf("build ssi: %v", err)
	}
	binary := filepath.Join(dir, "ssi-"+hash[:16])
	if _, err := os.Stat(binary); err == nil {
		return binary
	}
	if err := prune(dir, keptBinaries-1); err != nil {
		t.Fatalf("build ssi: %v", err)
	}
	if err := copyFile(binary, last, 0o755); err != nil {
		t.Fatalf("build ssi: %v", err)
	}
	return binary
}
