package sys

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// evMask is EVIOCSMASK of include/uapi/linux/input.h: _IOW('E', 0x93, struct input_mask).
const evMask = 0x40104593

// InputMask has an input device give this reader, of the events of a type, only those
// whose codes are set in a bitmap of whole longs, 8 bytes each, the lowest bit first; type 0 (EV_SYN) is
// about the types themselves. See "EVIOCSMASK" in include/uapi/linux/input.h. The error
// is ENOTTY where f is no input device, EINVAL for another size or of a kernel before 4.4.
func InputMask(f *os.File, kind uint32, codes []byte) error {
	if len(codes) == 0 || len(codes)%8 != 0 {
		return unix.EINVAL
	}
	var pin runtime.Pinner
	pin.Pin(&codes[0])
	defer pin.Unpin()
	mask := struct { // struct input_mask
		kind, size uint32
		codes      uint64
	}{kind, uint32(len(codes)), uint64(uintptr(unsafe.Pointer(&codes[0])))}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var e unix.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, e = unix.Syscall(unix.SYS_IOCTL, fd, evMask, uintptr(unsafe.Pointer(&mask)))
	})
	if err == nil && e != 0 {
		err = e
	}
	return err
}
