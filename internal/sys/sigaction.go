package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Action is what a signal does: struct sigaction of the kernel. The zero value is
// the default action.
type Action [4]uint64

// Ignore is the action of a signal that is ignored.
func Ignore() Action { return Action{sigIgnore} }

// SetAction sets what sig does and returns what it did (sigaction(2)), behind the
// back of the Go runtime. The runtime never goes back to the default action: it
// would survive SIGTSTP, and for SIGQUIT and the signals of faults print its
// stacks and exit with status 2. So this is for a process that stops or ends
// itself by sig, and sets back the action it found.
func SetAction(sig unix.Signal, act Action) (old Action, err error) {
	_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig),
		uintptr(unsafe.Pointer(&act)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	if e != 0 {
		return old, e
	}
	return old, nil
}
