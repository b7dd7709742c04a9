package ptrace

import (
	"bytes"
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"

	"ssi/internal/proc"
)

// maxStrings is how many bytes arguments and environment have at most: the rest of
// proc.MaxSpec is for what else a process has.
const maxStrings = proc.MaxSpec - 1<<16

// block is how many pointers are read at once.
const block = 128

// memory is that of a thread. Addresses are what a hostile program says.
type memory struct {
	tid  int
	page uint64
}

func memoryOf(tid int) memory { return memory{tid, uint64(os.Getpagesize())} }

// read fills b from addr, as far as it can.
func (m memory) read(addr uint64, b []byte) int {
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	n, err := unix.ProcessVMReadv(m.tid, local, []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}, 0)
	if err != nil {
		return 0
	}
	return n
}

// text is the string at addr, of limit bytes at most without its end; else the error is
// long.
func (m memory) text(addr uint64, limit int, long unix.Errno) ([]byte, unix.Errno) {
	var s []byte
	for chunk := uint64(64); len(s) <= limit; chunk = m.page {
		b := make([]byte, min(chunk, m.page-addr%m.page)) // the next page may not be there
		n := m.read(addr, b)
		if n == 0 {
			return nil, unix.EFAULT
		}
		if end := bytes.IndexByte(b[:n], 0); end >= 0 {
			s = append(s, b[:end]...)
			break
		}
		s = append(s, b[:n]...)
		addr += uint64(n)
	}
	if len(s) > limit {
		return nil, long
	}
	return s, 0
}

// texts reads a list of strings that a null pointer ends, and returns the first of
// them and how many bytes all have. A null addr is an empty list, as for execve(2).
func (m memory) texts(addr uint64, limit int) (first []byte, size int, e unix.Errno) {
	if addr == 0 {
		return nil, 0, 0
	}
	for count := 0; ; {
		b := make([]byte, 8*block)
		// No pointer crosses a page, unless the list begins at an odd address.
		b = b[:max(8, min(uint64(len(b)), (m.page-addr%m.page)&^7))]
		n := m.read(addr, b) &^ 7
		if n == 0 {
			return nil, 0, unix.EFAULT
		}
		for at := 0; at < n; at += 8 {
			p := binary.NativeEndian.Uint64(b[at:])
			if p == 0 {
				return first, size, 0
			}
			s, e := m.text(p, limit-size, unix.E2BIG)
			if e != 0 {
				return nil, 0, e
			}
			if count == 0 {
				first = s
			}
			count++
			if size += len(s) + 1; size > limit {
				return nil, 0, unix.E2BIG
			}
		}
		addr += uint64(n)
	}
}
