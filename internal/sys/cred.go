package sys

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Credentials are the identity that the kernel judges a request by.
type Credentials struct {
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary; the kernel takes at most 65,536
}

// nobodyElse is a user ID that no process has: the real user of a thread of As.
// It is valid (only -1 is not), yet no system gives it out.
const nobodyElse = 1<<32 - 2

// As calls f on a thread of its own that has the effective user, group and
// supplementary groups of c and no effective capability, and ends that thread.
// The credentials of the other threads do not change (see "C library/kernel
// differences" in setresuid(2)). It needs CAP_SETUID and CAP_SETGID; for user 0
// it just calls f.
//
// f may do what the kernel decides by the effective user: kill(2), setpriority(2).
// It must not start goroutines. The real and saved user stay those of nobody and
// of root: a thread that took the caller's real user could be killed by the
// caller, and the whole daemon with it (kill(2) compares the sender with the real
// and the saved user of the target). So si_uid of a signal is not the caller's.
func As(c Credentials, f func() error) error {
	if c.UID == 0 {
		return f()
	}
	done := make(chan error, 1)
	go onThread(c, f, done)
	return <-done
}

func onThread(c Credentials, f func() error, done chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The main thread cannot be ended. Keep it away from the next try.
		next := make(chan error, 1)
		go onThread(c, f, next)
		done <- <-next
		runtime.UnlockOSThread()
		return
	}
	// A goroutine that ends without UnlockOSThread takes its thread with it.
	var err error
	defer func() { done <- err }()
	if err = become(c); err == nil {
		err = f()
	}
}

// become changes the credentials of this thread: groups first, while it may.
func become(c Credentials) error {
	var groups unsafe.Pointer
	if len(c.Groups) > 0 {
		groups = unsafe.Pointer(&c.Groups[0])
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(c.Groups)), uintptr(groups), 0); e != 0 {
		return fmt.Errorf("setgroups: %w", e)
	}
	gid := uintptr(c.GID)
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); e != 0 {
		return fmt.Errorf("setresgid: %w", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, nobodyElse, uintptr(c.UID), 0); e != 0 {
		return fmt.Errorf("setresuid: %w", e)
	}
	return nil
}
