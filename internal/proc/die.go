package proc

import (
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/sys"
)

// DieBy ends this process by the signal s, without a core dump, so that its
// parent sees the death of another process by s as its own child's. It returns
// only if s cannot end this process.
func DieBy(s unix.Signal) {
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	_, _ = sys.SetAction(s, sys.Action{})
	_ = unix.Kill(unix.Getpid(), s)
	// The signal is delivered to another thread; the kernel needs a moment.
	time.Sleep(time.Second)
}
