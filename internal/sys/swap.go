package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The flags of Swapon; a priority (0 to 32767) is added to SwapPrefer. See
// swapon(2) and include/linux/swap.h.
const (
	SwapPrefer  = 0x8000
	SwapDiscard = 0x10000
)

// Swapon makes a file or device a swap area; see swapon(2).
func Swapon(path string, flags int) error {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	if _, _, e := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(p)), uintptr(flags), 0); e != 0 {
		return e
	}
	return nil
}

// Swapoff ends the use of a swap area, which may take as long as reading it; see
// swapoff(2).
func Swapoff(path string) error {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	if _, _, e := unix.Syscall(unix.SYS_SWAPOFF, uintptr(unsafe.Pointer(p)), 0, 0); e != 0 {
		return e
	}
	return nil
}
