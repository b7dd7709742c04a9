package vmtest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// Made is the path of a file or directory that is made once and kept in the
// cache, such as a root file system; nobody may change it. The name says what is
// in it, so that something else gets another one. build makes it at the path it
// is given; a failure or a skip leaves nothing.
func Made(t testing.TB, name string, build func(ctx context.Context, path string) error) string {
	t.Helper()
	if ok, err := regexp.MatchString(`^[a-z0-9][a-z0-9+._-]*$`, name); !ok || err != nil {
		t.Fatalf("%q is no name of something in the cache: use a-z, 0-9 and '+._-'", name)
	}
	ctx, cancel := testContext(t)
	defer cancel()
	held, err := lock(ctx, cacheDir(t, "locks"), "made-"+name)
	if err != nil {
		t.Fatalf("make %s: %v", name, err)
	}
	defer held.Close()
	dir := cacheDir(t, "made")
	path := filepath.Join(dir, name)
	if _, err := os.Lstat(path); err == nil {
		return path
	}
	tmp, err := os.MkdirTemp(dir, ".new-*")
	if err != nil {
		t.Fatalf("make %s: %v", name, err)
	}
	defer os.RemoveAll(tmp)
	if err := build(ctx, filepath.Join(tmp, name)); err != nil {
		t.Fatalf("make %s: %v", name, err)
	}
	if err := os.Rename(filepath.Join(tmp, name), path); err != nil {
		t.Fatalf("make %s: %v", name, err)
	}
	return path
}

// Overlay is the path of a new qcow2 disk of the test that has the content of a
// raw disk and takes what is written, so that the raw one stays as it is. It
// skips the test without Debian's qemu-utils.
func Overlay(t testing.TB, raw string) string {
	t.Helper()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("skipped: qemu-img is not installed: apt-get install qemu-utils")
	}
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	if _, err := run(t.Context(), "", "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", raw, path); err != nil {
		t.Fatal(err)
	}
	return path
}
