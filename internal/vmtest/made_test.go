package vmtest

import (
	"context"
	"debug/elf"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// What is made is made once, and what fails half-way leaves nothing.
func TestMade(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("SSI_TEST_CACHE", cache)
	made := 0
	build := func(_ context.Context, path string) error {
		made++
		return os.WriteFile(path, []byte("content"), 0o600)
	}
	path := Made(t, "root-1", build)
	if again := Made(t, "root-1", build); again != path || made != 1 {
		t.Errorf("made %d times, at %s and %s", made, path, again)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "content" {
		t.Errorf("it has %q, %v", b, err)
	}
	other := Made(t, "root-2", build)
	if other == path || made != 2 {
		t.Errorf("another is at %s, made %d times", other, made)
	}
	// A t.Fatal or t.Skip within build ends as a panic or Goexit does.
	func() {
		defer func() { _ = recover() }()
		Made(t, "broken", func(_ context.Context, path string) error {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				return err
			}
			panic(errors.New("half-way"))
		})
	}()
	left, err := os.ReadDir(filepath.Join(cache, "made"))
	if err != nil || len(left) != 2 {
		t.Errorf("left are %v, %v", left, err)
	}
	if Made(t, "broken", build); made != 3 {
		t.Error("what failed once cannot be made any more")
	}
}

// The binary is built, and built once.
func TestBinary(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: a build takes long, and -short is set")
	}
	path := Binary(t)
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if libs, err := f.ImportedLibraries(); err != nil || len(libs) > 0 {
		t.Errorf("it is not static: %q, %v", libs, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if again := Binary(t); again != path {
		t.Errorf("the same tree is built to %s and %s", path, again)
	}
}
