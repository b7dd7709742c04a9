package sys

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// What it does to an input device is tested in a machine: see init's tests.
func TestInputMaskErrors(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if err := InputMask(f, 1, make([]byte, 8)); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("of no input device: %v", err)
	}
	for _, codes := range [][]byte{nil, make([]byte, 4), make([]byte, 12)} {
		if err := InputMask(f, 1, codes); !errors.Is(err, unix.EINVAL) {
			t.Errorf("with %d bytes: %v", len(codes), err)
		}
	}
	_ = f.Close()
	if err := InputMask(f, 1, make([]byte, 8)); err == nil {
		t.Error("a closed file was taken")
	}
}
