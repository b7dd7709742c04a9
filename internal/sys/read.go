package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ReadFileAt reads the file path below the directory dir into buf and returns how
// many bytes it got: all of the file or, if that is longer, len(buf). path ends
// in a NUL byte. It allocates nothing, for the many small files of proc(5); see
// openat(2) and read(2).
func ReadFileAt(dir int, path []byte, buf []byte) (int, error) {
	if len(path) == 0 || path[len(path)-1] != 0 || len(buf) == 0 {
		return 0, unix.EINVAL
	}
	fd, err := openat(dir, path)
	if err != nil {
		return 0, err
	}
	n, err := readFull(fd, buf)
	_ = unix.Close(fd)
	return n, err
}

func openat(dir int, path []byte) (int, error) {
	for {
		fd, _, e := unix.Syscall6(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(&path[0])), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0, 0, 0)
		switch e {
		case 0:
			return int(fd), nil
		case unix.EINTR:
		default:
			return 0, e
		}
	}
}

// readFull reads until buf is full or the file ends. Files of proc(5) end with
// the first short read, except where a buffer of the kernel ends earlier, so a
// read that filled less than half a page is the last.
func readFull(fd int, buf []byte) (int, error) {
	const lastRead = 2048
	got := 0
	for got < len(buf) {
		n, _, e := unix.Syscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&buf[got])), uintptr(len(buf)-got))
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return got, e
		}
		if n == 0 {
			break
		}
		got += int(n)
		if n < lastRead {
			break
		}
	}
	return got, nil
}
