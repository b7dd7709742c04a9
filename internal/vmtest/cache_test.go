package vmtest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestNewest(t *testing.T) {
	names := []string{
		"linux-image-6.12-cloud-amd64", "linux-image-6.12.9+deb12-cloud-amd64", "linux-image-6.12.100+deb12-cloud-amd64",
		"linux-image-6.12.117+deb12-cloud-amd64-dbg", "linux-image-6.12.117+deb12-amd64", "linux-image-6.12.63+deb13-cloud-amd64",
		"linux-image-6.12.63+deb13.1-cloud-amd64", "linux-image-6.1.0-40-cloud-amd64", "linux-image-6.12.200+deb12-cloud-arm64", "",
	}
	got := newest(names, packagePrefix, cloud)
	want := []string{
		"linux-image-6.12.100+deb12-cloud-amd64", "linux-image-6.12.63+deb13.1-cloud-amd64",
		"linux-image-6.12.63+deb13-cloud-amd64", "linux-image-6.12.9+deb12-cloud-amd64",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if got := newest(names, packagePrefix, generic); !slices.Equal(got, []string{"linux-image-6.12.117+deb12-amd64"}) {
		t.Errorf("generic: got %q", got)
	}
}

// fakeKernel is an unpacked kernel in a cache.
func fakeKernel(t *testing.T, cache, version string) string {
	t.Helper()
	dir := filepath.Join(cache, version)
	image := filepath.Join(dir, "boot", "vmlinuz-"+version)
	for _, d := range []string{filepath.Dir(image), filepath.Join(dir, "lib", "modules", version, "kernel")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(image, []byte(version), 0o644); err != nil {
		t.Fatal(err)
	}
	hash, err := sum(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, sumFile), []byte(hash), 0o644); err != nil {
		t.Fatal(err)
	}
	return image
}

// A kernel that changed in the cache is not used.
func TestCachedKernel(t *testing.T) {
	cache := t.TempDir()
	if _, ok := cachedKernel(t, cache, cloud); ok {
		t.Error("an empty cache has a kernel")
	}
	const old, young = "6.12.9+deb12-cloud-amd64", "6.12.10+deb12-cloud-amd64"
	fakeKernel(t, cache, old)
	image := fakeKernel(t, cache, young)
	if k, ok := cachedKernel(t, cache, cloud); !ok || k.Version != young || k.Image != image || !strings.HasSuffix(k.Modules, "/lib/modules/"+young) {
		t.Errorf("found %+v", k)
	}
	if err := os.WriteFile(image, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if k, ok := cachedKernel(t, cache, cloud); !ok || k.Version != old {
		t.Errorf("found %+v", k)
	}
	if _, err := os.Stat(filepath.Join(cache, young)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the damaged kernel is still there: %v", err)
	}
}

// Two tests that want more than half of the slots do not wait for each other for
// ever, and no more are given away than there are.
func TestSlots(t *testing.T) {
	dir := t.TempDir()
	const most = Slots/2 + 1
	first, err := slots(t.Context(), dir, most)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*pollTime)
	defer cancel()
	if _, err := slots(ctx, dir, most); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%d of %d slots: %v", 2*most, Slots, err)
	}
	one, err := slots(t.Context(), dir, 1) // what was taken in vain is given back
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		held, err := slots(t.Context(), dir, Slots+5)
		closeAll(held)
		if len(held) != Slots {
			err = errors.Join(err, errors.New("not all slots"))
		}
		got <- err
	}()
	closeAll(first)
	closeAll(one)
	select {
	case err := <-got:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("free slots are not given")
	}
	if f, err := tryLock(dir, "x"); err != nil {
		t.Error(err)
	} else if _, err := tryLock(dir, "x"); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("a lock is taken twice: %v", err)
	} else if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestPrune(t *testing.T) {
	dir := t.TempDir()
	for i, name := range []string{"c", "a", "d", "b"} {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(int64(1000+i), 0)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := prune(dir, 2); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 2 || filepath.Base(left[0]) != "b" || filepath.Base(left[1]) != "d" {
		t.Errorf("left are %q, %v", left, err)
	}
}
