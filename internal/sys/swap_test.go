package sys

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSwapErrors(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("skipped: needs root: others get EPERM first")
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, make([]byte, 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		want error
	}{{file, unix.EINVAL}, {file + "x", unix.ENOENT}, {"a\x00b", unix.EINVAL}} {
		// A file without a signature, or a file system that cannot, is EINVAL.
		if err := Swapon(c.path, SwapPrefer|1); !errors.Is(err, c.want) {
			t.Errorf("on %q: %v, want %v", c.path, err, c.want)
		}
		if err := Swapoff(c.path); !errors.Is(err, c.want) {
			t.Errorf("off %q: %v, want %v", c.path, err, c.want)
		}
	}
}

func TestAddEntropyErrors(t *testing.T) {
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "plain"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := AddEntropy(f, make([]byte, MaxEntropy+1)); !errors.Is(err, unix.EINVAL) {
		t.Errorf("too much: %v", err)
	}
	if err := AddEntropy(f, make([]byte, MaxEntropy)); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("no random device: %v", err)
	}
}
