package sys

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MaxEntropy is how many bytes AddEntropy takes.
const MaxEntropy = 512

// AddEntropy gives random bytes to the kernel and has it count them in full; see
// RNDADDENTROPY in random(4). f is /dev/urandom, opened for writing.
func AddEntropy(f *os.File, seed []byte) error {
	if len(seed) > MaxEntropy {
		return unix.EINVAL
	}
	var pool struct { // struct rand_pool_info of include/uapi/linux/random.h
		bits, size int32
		buf        [MaxEntropy]byte
	}
	pool.bits, pool.size = int32(8*len(seed)), int32(len(seed))
	copy(pool.buf[:], seed)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&pool))); e != 0 {
		return e
	}
	return nil
}
