package sys

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The probes tell by the kernel's choice of an error whether it knows a feature,
// without using it.

// ProbeSetTID reports whether clone3(2) knows set_tid. It asks for a process in
// more nested PID namespaces than can be (MAX_PID_NS_LEVEL is 32): a kernel that
// knows the field refuses the number, EINVAL; an older one refuses the longer
// structure, E2BIG. Neither makes a process.
func ProbeSetTID() error {
	args := struct {
		flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls uint64
		setTID, setTIDSize                                                   uint64
	}{setTID: 1, setTIDSize: 1 << 20}
	_, _, e := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
	if e == unix.EINVAL {
		return nil
	}
	return fmt.Errorf("clone3: %w", e)
}

// ProbeSeccompNotify reports whether seccomp(2) knows user notification with
// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV. It passes no filter: a kernel that
// knows the flags fails to read it, EFAULT; another refuses the flags, EINVAL.
func ProbeSeccompNotify() error {
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, 0)
	if e == unix.EFAULT {
		return nil
	}
	return fmt.Errorf("seccomp: %w", e)
}

// ProbeUserfaultfd reports whether userfaultfd(2) works for this process.
func ProbeUserfaultfd() error {
	fd, _, e := unix.RawSyscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	if e != 0 {
		return fmt.Errorf("userfaultfd: %w", e)
	}
	return unix.Close(int(fd))
}
