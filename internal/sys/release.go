package sys

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ReleaseText gives back the pages of this process's program text and constants
// (madvise(2), MADV_DONTNEED): what is used again comes back from the page cache.
// The start of a program touches much of it that a small role never needs again.
// Mappings that hold a changed page are left alone. It is best effort.
func ReleaseText() {
	f, err := os.Open("/proc/self/smaps") // proc_pid_smaps(5)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	var start, length uintptr // of the mapping that is being described; 0: not ours
	var found [][2]uintptr
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) >= 5 && strings.Contains(fields[0], "-"):
			start, length = 0, 0
			if len(fields) == 6 && strings.HasPrefix(fields[5], "/") && !strings.Contains(fields[1], "w") {
				start, length = rangeOf(fields[0])
			}
		case len(fields) == 3 && fields[0] == "Anonymous:" && fields[1] == "0" && length > 0:
			found = append(found, [2]uintptr{start, length})
		}
	}
	for _, m := range found {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m[0], m[1], unix.MADV_DONTNEED)
	}
}

// rangeOf reads "first-end" in hexadecimal; the length is 0 if it cannot.
func rangeOf(s string) (start, length uintptr) {
	a, b, _ := strings.Cut(s, "-")
	bits := int(unsafe.Sizeof(start)) * 8
	first, err := strconv.ParseUint(a, 16, bits)
	if err != nil {
		return 0, 0
	}
	end, err := strconv.ParseUint(b, 16, bits)
	if err != nil || end < first {
		return 0, 0
	}
	return uintptr(first), uintptr(end - first)
}
