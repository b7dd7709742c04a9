package vmtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pollTime is how often a lock is tried.
const pollTime = 100 * time.Millisecond

// cacheDir is a directory of the cache, which it makes.
func cacheDir(t testing.TB, name string) string {
	t.Helper()
	root := os.Getenv("SSI_TEST_CACHE")
	if root == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			t.Fatalf("no directory for the kernel of the machines: %v; set SSI_TEST_CACHE", err)
		}
		root = filepath.Join(user, "ssi-test")
	}
	dir, err := filepath.Abs(filepath.Join(root, name))
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		t.Fatalf("cache of the tests: %v; set SSI_TEST_CACHE", err)
	}
	return dir
}

// testContext ends shortly before the test is ended.
func testContext(t testing.TB) (context.Context, context.CancelFunc) {
	if d, ok := t.(interface{ Deadline() (time.Time, bool) }); ok {
		if end, ok := d.Deadline(); ok {
			return context.WithDeadline(t.Context(), end.Add(-10*time.Second))
		}
	}
	return context.WithCancel(t.Context())
}

// lock waits for the lock of a name, and for the end of ctx at most.
func lock(ctx context.Context, dir, name string) (*os.File, error) {
	f, err := tryLock(dir, name)
	for ; errors.Is(err, unix.EWOULDBLOCK); f, err = tryLock(dir, name) {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for %s, which another test holds: %w", filepath.Join(dir, name), ctx.Err())
		case <-time.After(pollTime):
		}
	}
	return f, err
}

// tryLock takes a lock, or fails with EWOULDBLOCK. It is released when the file
// is closed.
func tryLock(dir, name string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	return f, nil
}

// sum is the SHA-256 of a file, in hexadecimal.
func sum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// copyFile makes a new file with the content of another, at once or not at all.
func copyFile(to, from string, perm os.FileMode) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	tmp, err := os.CreateTemp(filepath.Dir(to), ".new-*")
	if err != nil {
		return err
	}
	_, err = io.Copy(tmp, src)
	err = errors.Join(err, tmp.Chmod(perm), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), to)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

// prune removes all but the newest entries of a directory.
func prune(dir string, keep int) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	type entry struct {
		name string
		time time.Time
	}
	var all []entry
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // somebody else removed it
		}
		all = append(all, entry{e.Name(), info.ModTime()})
	}
	slices.SortFunc(all, func(a, b entry) int { return b.time.Compare(a.time) })
	var errs []error
	for _, e := range all[min(keep, len(all)):] {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, e.name)))
	}
	return errors.Join(errs...)
}
