package loader

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestInitramfsCheck(t *testing.T) {
	plain := newc("init", "bin/sh")
	for name, b := range map[string][]byte{
		"cpio":                     plain,
		"gzip":                     gz(plain),
		"zstd":                     zst(plain),
		"xz":                       xzip(t, plain),
		"two in one":               gz(append(bytes.Clone(plain), plain...)),
		"padded":                   append(gz(plain), make([]byte, 512)...),
		"padded zstd":              append(zst(plain), 0, 0),
		"padded zstd before gzip":  append(append(zst(plain), 0, 0, 0), gz(plain)...),
		"microcode before it":      append(append(bytes.Clone(plain), make([]byte, 512)...), zst(plain)...),
		"gzip behind gzip":         append(gz(plain), gz(plain)...),
		"padded, then another one": append(append(gz(plain), 0, 0, 0), plain...),
	} {
		if err := InitramfsCheck(bytes.NewReader(b), int64(len(b))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if strings.HasPrefix(name, "padded") {
			continue // some padding may be missing
		}
		for n := range b {
			if err := InitramfsCheck(bytes.NewReader(b[:n]), int64(n)); err == nil && !whole(b[:n], plain) {
				t.Fatalf("%s: %d bytes of %d pass", name, n, len(b))
			}
		}
	}
	for want, b := range map[string][]byte{
		"nothing but zeros": make([]byte, 100),
		"none of gzip":      []byte("garbage that is long enough"),
		"no cpio archive":   gz(nil),
		"not the begin":     gz([]byte("text")),
		"damaged":           []byte("070701" + strings.Repeat("z", 104)),
	} {
		if err := InitramfsCheck(bytes.NewReader(b), int64(len(b))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	damaged := gz(plain)
	damaged[len(damaged)/2] ^= 0x10
	if err := InitramfsCheck(bytes.NewReader(damaged), int64(len(damaged))); err == nil {
		t.Error("a damaged one passes")
	}
}

// whole reports whether b is a cut that leaves whole archives: the last one may
// miss its padding, and the first of two may stand alone.
func whole(b, plain []byte) bool {
	for _, one := range [][]byte{plain, gz(plain)} {
		one = bytes.TrimRight(one, "\x00")
		if rest, ok := bytes.CutPrefix(b, one); ok && len(bytes.Trim(rest, "\x00")) == 0 {
			return true
		}
	}
	return bytes.Equal(b, gz(plain))
}

func TestKernelCheck(t *testing.T) {
	b := bzImage("6.12.30-test")
	if err := KernelCheck(BIOS)(bytes.NewReader(b), int64(len(b))); err != nil {
		t.Errorf("kernel: %v", err)
	}
	if r := Release(bytes.NewReader(b), int64(len(b))); r != "6.12.30-test" {
		t.Errorf("release %q", r)
	}
	for n := range b {
		if err := KernelCheck(BIOS)(bytes.NewReader(b[:n]), int64(n)); err == nil && n <= len(b)-16 {
			t.Fatalf("%d bytes of %d pass", n, len(b))
		}
	}
	if err := KernelCheck(UEFIarm64)(bytes.NewReader(b), int64(len(b))); err == nil || !strings.Contains(err.Error(), "UEFI arm64") {
		t.Errorf("for arm64: %v", err)
	}
	zboot := make([]byte, 128)
	copy(zboot, "MZ\x00\x00zimg\x40\x00\x00\x00\x41\x00\x00\x00")
	if err := KernelCheck(UEFIarm64)(bytes.NewReader(zboot), 128); !errors.Is(err, errCut) {
		t.Errorf("zboot image that is cut off: %v", err)
	}
}

// Kernels that distributions ship pass, and cut ones do not.
func TestRealKernel(t *testing.T) {
	paths, _ := filepath.Glob("/boot/vmlinuz-*")
	if cache, err := os.UserCacheDir(); err == nil {
		more, _ := filepath.Glob(filepath.Join(cache, "ssi-test/*/boot/vmlinuz-*")) // of the tests with machines
		paths = append(paths, more...)
	}
	lkrn, _ := filepath.Glob("/boot/ipxe.lkrn") // has the header of a kernel
	for _, path := range append(paths, lkrn...) {
		e, err := File(path, KernelCheck(BIOS))
		if err != nil {
			t.Error(err)
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int64{e.size - 600, e.size / 2, 1000} {
			if err := KernelCheck(BIOS)(bytes.NewReader(b), n); err == nil {
				t.Errorf("%s: %d bytes of %d pass", path, n, e.size)
			}
		}
	}
	if len(paths)+len(lkrn) == 0 {
		t.Skip("there is neither /boot/vmlinuz-* nor /boot/ipxe.lkrn on this machine (apt install ipxe)")
	}
}

func TestFind(t *testing.T) {
	found, missing := Find(t.TempDir())
	if len(found) != 0 || len(missing) != len(known()) {
		t.Errorf("in an empty root: %d found, %d missing", len(found), len(missing))
	}
	for _, m := range missing {
		if !strings.Contains(m.Error(), "apt install "+m.Package) {
			t.Errorf("%v does not say what to install", m)
		}
	}
	root := t.TempDir()
	for _, d := range []string{"usr/lib/ipxe", "usr/lib/PXELINUX"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, size := range map[string]int{"usr/lib/ipxe/undionly.kpxe": 70000, "usr/lib/PXELINUX/pxelinux.0": 100, "usr/lib/ipxe/snponly.efi": 70000} {
		if err := os.WriteFile(filepath.Join(root, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, missing = Find(root)
	if len(found) != 1 || found[0].Name != Undionly {
		t.Errorf("found %+v", found)
	}
	damaged := 0
	for _, m := range missing {
		if strings.Contains(m.Error(), "reinstall the package "+m.Package) {
			damaged++
		}
	}
	if damaged != 2 {
		t.Errorf("%d are damaged: %v", damaged, missing)
	}
}

// The loaders of installed packages are found and pass.
func TestFindHere(t *testing.T) {
	found, missing := Find("/")
	for _, l := range found {
		if _, err := l.Entry(); err != nil {
			t.Error(err)
		}
	}
	for _, m := range missing {
		if !errors.Is(m, os.ErrNotExist) {
			t.Error(m)
		} else {
			t.Logf("not tested: %v", m)
		}
	}
}

func FuzzInitramfs(f *testing.F) {
	plain := newc("init")
	for _, b := range [][]byte{plain, gz(plain), zst(plain), xzip(f, plain), {0, 0, 0}} {
		f.Add(b)
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		_ = InitramfsCheck(bytes.NewReader(b), int64(len(b)))
		_ = KernelCheck(BIOS)(bytes.NewReader(b), int64(len(b)))
		_ = KernelCheck(UEFIarm64)(bytes.NewReader(b), int64(len(b)))
		_ = Release(bytes.NewReader(b), int64(len(b)))
	})
}
