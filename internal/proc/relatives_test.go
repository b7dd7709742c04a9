package proc

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRelativesOf(t *testing.T) {
	sid, err := unix.Getsid(0)
	if err != nil {
		t.Fatal(err)
	}
	r, ok := RelativesOf(int32(os.Getpid()))
	if r.State = 'R'; !ok || r != (Relatives{'R', int32(os.Getppid()), int32(unix.Getpgrp()), int32(sid)}) {
		t.Errorf("%+v, %v", r, ok)
	}
	if _, ok := RelativesOf(1 << 30); ok {
		t.Error("a process that cannot be")
	}
}
