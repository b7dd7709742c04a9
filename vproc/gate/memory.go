package gate

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"ssi/internal/sys"
)

// errGone tells that a call waits no longer.
var errGone = errors.New("the caller is gone")

// taskMemory is the memory of a caller while its call waits. Nothing of it is
// believed, and what is read may be of another process until valid has returned
// nil after; so also what this process opens below /proc/TID.
type taskMemory struct {
	tid   int
	proc  string // /proc/TID
	valid func() error
}

// read fills b from address addr as the kernel would: all or EFAULT.
func (m *taskMemory) read(addr uint64, b []byte) unix.Errno {
	if len(b) == 0 {
		return 0
	}
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	n, err := unix.ProcessVMReadv(m.tid, local, []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}, 0)
	if err != nil || n != len(b) {
		return unix.EFAULT
	}
	return 0
}

// write writes b to address addr: all or EFAULT.
//
// It must not hit a process that got the caller's number meanwhile. So it goes by
// files that are bound to the memory as it was when they were opened, and asks
// after that whether the call still waits. /proc/TID/mem writes also where the
// process may not, so the mappings are looked at before; who changes them in
// between overwrites what is its own.
func (m *taskMemory) write(addr uint64, b []byte) unix.Errno {
	maps, err := os.Open(m.proc + "/maps")
	if err != nil {
		return unix.EFAULT
	}
	defer func() { _ = maps.Close() }()
	mem, err := os.OpenFile(m.proc+"/mem", os.O_WRONLY, 0)
	if err != nil {
		return unix.EFAULT
	}
	defer func() { _ = mem.Close() }()
	if m.valid() != nil {
		return unix.EFAULT
	}
	if addr > 1<<63-1-uint64(len(b)) { // no address of a program, and no offset in a file
		return unix.EFAULT
	}
	for at := addr; at < addr+uint64(len(b)); {
		end, err := sys.WritableMapping(int(maps.Fd()), at)
		if err != nil || end <= at {
			return unix.EFAULT
		}
		at = end
	}
	if n, err := mem.WriteAt(b, int64(addr)); err != nil || n != len(b) {
		return unix.EFAULT
	}
	return 0
}

// callerFile is the caller's file fd, for the thread tid. ours tells that the
// kernel of this node knows itself what it means in pidfd_send_signal(2): a pidfd, a
// directory of proc(5), no file at all.
func callerFile(tid int, fd int32, valid func() error) (f *os.File, ours bool, err error) {
	const thread = unix.O_EXCL // PIDFD_THREAD
	pidfd, err := unix.PidfdOpen(tid, thread)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = unix.Close(pidfd) }()
	if valid() != nil {
		return nil, false, errGone
	}
	got, err := unix.PidfdGetfd(pidfd, int(fd), 0)
	if errors.Is(err, unix.EBADF) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	var fs unix.Statfs_t
	if unix.Fstatfs(got, &fs) == nil && (fs.Type == unix.PID_FS_MAGIC || fs.Type == unix.PROC_SUPER_MAGIC) {
		return nil, true, unix.Close(got)
	}
	return os.NewFile(uintptr(got), "file of a caller"), false, nil
}
