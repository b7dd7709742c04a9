package sys

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxGroups is NGROUPS_MAX of the kernel: more supplementary groups no process has.
const maxGroups = 65536

// PeerGroups is the supplementary groups that the process at the other end of
// the unix socket fd had when it connected: SO_PEERGROUPS of unix(7).
func PeerGroups(fd int) ([]uint32, error) {
	buf := make([]uint32, 32)
	for {
		size := uint32(4 * len(buf))
		_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case e == 0:
			return buf[:size/4], nil
		case e == unix.ERANGE && size <= 4*maxGroups && size > uint32(4*len(buf)):
			buf = make([]uint32, size/4) // the kernel told how much it needs
		default:
			return nil, fmt.Errorf("SO_PEERGROUPS: %w", e)
		}
	}
}
