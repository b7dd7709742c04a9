package loader

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func tree(t testing.TB, entries map[string]Entry) *Tree {
	tr, err := NewTree(entries)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func entry(t testing.TB, data string) Entry {
	e, err := Bytes([]byte(data), time.Unix(1, 0), nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestTree(t *testing.T) {
	path := write(t, "kernel", []byte("the kernel"))
	e, err := File(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := tree(t, map[string]Entry{"vmlinuz": e, "a/b": entry(t, "text")})
	for name, want := range map[string]string{"vmlinuz": "the kernel", "a/b": "text"} {
		f, info, err := tr.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(f)
		if err != nil || string(b) != want || info.Size() != int64(len(want)) || info.Sys() != any(sha256.Sum256(b)) {
			t.Errorf("%s: %q, %+v, %v", name, b, info, err)
		}
		if _, ok := f.(io.ReaderAt); !ok {
			t.Errorf("%s cannot be read at an offset", name)
		}
		_ = f.Close()
	}
	var s Shelf
	if _, _, err := s.Open("vmlinuz"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty shelf: %v", err)
	}
	s.Put(tr)
	s.Put(tree(t, map[string]Entry{"new": entry(t, "x")}))
	if _, _, err := s.Open("vmlinuz"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was in the tree before: %v", err)
	}
}

// No name but those of the tree opens anything.
func TestRogueNames(t *testing.T) {
	secret := write(t, "secret", []byte("secret"))
	link := filepath.Join(filepath.Dir(secret), "link")
	if err := os.Symlink(secret, link); err != nil {
		t.Fatal(err)
	}
	e, err := File(write(t, "kernel", []byte("x")), nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := tree(t, map[string]Entry{"dir/vmlinuz": e})
	for _, name := range []string{
		"", "/", ".", "..", "dir", "dir/", "/dir/vmlinuz", "dir//vmlinuz", "dir/./vmlinuz", "dir/../dir/vmlinuz", "../secret", secret, link, "dir/vmlinuz\x00",
		"dir/vmlinuz\x00.efi", "dir\\vmlinuz", "DIR/VMLINUZ", "/etc/passwd", "../../../../etc/passwd", "%2e%2e/secret", "/proc/self/environ", strings.Repeat("a/", 1<<16), "dir/vmlinuz ",
	} {
		if _, _, err := tr.Open(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%.50q: %v", name, err)
		}
		if _, err := NewTree(map[string]Entry{name: e}); err == nil && name != "dir" && name != "DIR/VMLINUZ" && name != "%2e%2e/secret" {
			t.Errorf("%.50q is a name", name)
		}
	}
}

// A file that is not any more what was checked is refused, and is not "not there".
func TestChanged(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"cut":      func(p string) error { return os.Truncate(p, 3) },
		"removed":  os.Remove,
		"replaced": func(p string) error { _ = os.Rename(p, p+".old"); return os.WriteFile(p, []byte("the kernel"), 0o600) },
		"touched":  func(p string) error { return os.Chtimes(p, time.Now(), time.Unix(99, 0)) },
		"linked":   func(p string) error { _ = os.Remove(p); return os.Symlink("/etc/passwd", p) },
		"pipe":     func(p string) error { _ = os.Remove(p); return os.Mkdir(p, 0o700) },
	} {
		path := write(t, "kernel", []byte("the kernel"))
		e, err := File(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		tr := tree(t, map[string]Entry{"vmlinuz": e})
		if err := change(path); err != nil {
			t.Fatal(err)
		}
		if _, _, err := tr.Open("vmlinuz"); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFileRefused(t *testing.T) {
	dir := t.TempDir()
	empty := write(t, "empty", nil)
	for _, path := range []string{dir, empty, filepath.Join(dir, "none"), "/dev/null", "/dev/zero"} {
		if _, err := File(path, nil); err == nil || strings.Count(err.Error(), path) != 1 {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := Bytes(nil, time.Time{}, nil); err == nil {
		t.Error("no bytes pass")
	}
	if _, err := Bytes([]byte("x"), time.Time{}, InitramfsCheck); err == nil {
		t.Error("garbage passes as initramfs")
	}
	if _, err := NewTree(map[string]Entry{"a": {}}); err == nil {
		t.Error("a zero entry passes")
	}
}

func FuzzTree(f *testing.F) {
	for _, s := range []string{"vmlinuz", "../x", "/vmlinuz", "a\x00b", "%2e%2e/"} {
		f.Add(s)
	}
	tr := tree(f, map[string]Entry{"vmlinuz": entry(f, "x")})
	f.Fuzz(func(t *testing.T, name string) {
		file, _, err := tr.Open(name)
		if (err == nil) != (name == "vmlinuz") || err == nil && file == nil {
			t.Fatalf("%q: %v", name, err)
		}
		other, err := NewTree(map[string]Entry{name: entry(t, "y")})
		if err != nil {
			return
		}
		if !fs.ValidPath(name) || bytes.ContainsAny([]byte(name), "\x00\n \\") {
			t.Fatalf("%q is a name", name)
		}
		if _, _, err := other.Open(name); err != nil {
			t.Fatal(err)
		}
	})
}

// A file that was checked elsewhere is known by its sum, and until it is another one.
func TestKnown(t *testing.T) {
	path := write(t, "kernel", []byte("the kernel"))
	if _, err := Known(path, sha256.Sum256([]byte("another"))); !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), path) {
		t.Errorf("another content: %v", err)
	}
	e, err := Known(path, sha256.Sum256([]byte("the kernel")))
	if err != nil || !e.Fresh() || e.Size() != 10 {
		t.Fatalf("got %+v, %v", e, err)
	}
	if (Entry{}).Fresh() {
		t.Error("no entry is fresh")
	}
	if !entry(t, "text").Fresh() {
		t.Error("what is in memory is not fresh")
	}
	if err := os.WriteFile(path, []byte("the kernel is another one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if e.Fresh() {
		t.Error("a file that was written is fresh")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if e.Fresh() {
		t.Error("a file that is gone is fresh")
	}
	if _, err := Known(path, e.Sum()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is gone: %v", err)
	}
}
