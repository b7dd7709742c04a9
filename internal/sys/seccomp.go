package sys

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Notification is struct seccomp_notif of seccomp_unotify(2): a system call that
// waits for an answer.
type Notification struct {
	ID    uint64 // unique among those of one filter; 0 in the zero value only
	TID   uint32 // of the caller, in the PID namespace of the receiver; 0: not visible there
	Flags uint32
	Nr    int32
	Arch  uint32 // AUDIT_ARCH_*
	IP    uint64
	Args  [6]uint64
}

// NotificationSize is sizeof(struct seccomp_notif).
const NotificationSize = int(unsafe.Sizeof(Notification{}))

// NotificationAt is b as a Notification, for a place in a mapped file. b has at
// least NotificationSize bytes and begins at a multiple of 8.
func NotificationAt(b []byte) *Notification {
	_ = b[NotificationSize-1]
	return (*Notification)(unsafe.Pointer(&b[0]))
}

// InstallFilter gives all threads of this process, and all they create from now on,
// a filter with user notification, and returns its listener. It needs
// CAP_SYS_ADMIN, for the threads do not get "no new privileges": setuid programs go
// on working. ESRCH: a thread has a filter of its own; EBUSY: there is a listener
// already. See seccomp(2).
func InstallFilter(prog []unix.SockFilter) (fd int, err error) {
	if len(prog) == 0 || len(prog) > unix.BPF_MAXINSNS {
		return -1, fmt.Errorf("seccomp: a filter of %d instructions: %w", len(prog), unix.EINVAL)
	}
	p := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV |
		unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
	r, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&p)))
	if e != 0 {
		return -1, fmt.Errorf("seccomp: %w", e)
	}
	return int(r), nil
}

// ReceiveNotification waits for the next call and fills n, which must be zero.
//
// n may lie in a mapped file: a call that the kernel could not write there whole,
// for whatever reason, is not received and comes again (seccomp_notify_recv in
// kernel/seccomp.c), and a process is not killed in between. n must not cross a page.
//
// ENOENT: the caller went away meanwhile, or nobody has the filter any more.
func ReceiveNotification(fd int, n *Notification) error {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(n)))
	if e != 0 {
		return e
	}
	return nil
}

// NotificationValid tells, by a nil error, that the call id was received and still
// waits for its answer.
func NotificationValid(fd int, id uint64) error {
	return retryIoctl(fd, unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&id))
}

// notifResp is struct seccomp_notif_resp.
type notifResp struct {
	id    uint64
	val   int64
	errno int32 // negative
	flags uint32
}

// AnswerNotification ends the call id with the value ret or, if e is not 0, with
// that error. ENOENT: the caller is gone.
func AnswerNotification(fd int, id uint64, ret int64, e unix.Errno) error {
	r := notifResp{id: id, val: ret, errno: -int32(e)}
	if e != 0 {
		r.val = 0
	}
	return retryIoctl(fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
}

// ContinueNotification has the kernel execute the call id as if it had not been
// caught. The caller may have changed its arguments in memory, not those in
// registers.
func ContinueNotification(fd int, id uint64) error {
	r := notifResp{id: id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
	return retryIoctl(fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
}

// AnswerWithFile gives the caller of id the file, and its new descriptor there is
// the result of the call. EMFILE: the caller has no room for it. A process that is
// killed in here may leave the descriptor with the caller, whose call still waits.
//
// It does not do both at once (SECCOMP_ADDFD_FLAG_SEND): killed in that, it would leave
// the caller with the result 0 and no file.
func AnswerWithFile(fd int, id uint64, file int, closeOnExec bool) error {
	a := struct {
		id                          uint64
		flags, src, dst, newfdFlags uint32
	}{id: id, src: uint32(file)}
	if closeOnExec {
		a.newfdFlags = unix.O_CLOEXEC
	}
	got, err := resultOfIoctl(fd, unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&a))
	if err != nil {
		return err
	}
	return AnswerNotification(fd, id, int64(got), 0)
}

// WakeOnSameCPU lets a caller and the receiver of its call wake each other on one
// processor: SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP, from Linux 6.6 on.
func WakeOnSameCPU(fd int) error {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	if e != 0 {
		return e
	}
	return nil
}

// retryIoctl goes on when a signal interrupted it: the locks of a listener and of
// the memory of a process are waited for interruptibly.
func retryIoctl(fd int, op uintptr, p unsafe.Pointer) error {
	_, err := resultOfIoctl(fd, op, p)
	return err
}

func resultOfIoctl(fd int, op uintptr, p unsafe.Pointer) (uintptr, error) {
	for {
		switch r, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), op, uintptr(p)); e {
		case 0:
			return r, nil
		case unix.EINTR:
		default:
			return 0, e
		}
	}
}

// mappingQuery is struct procmap_query of linux/fs.h.
type mappingQuery struct {
	size, flags, addr             uint64
	start, end, vmaFlags          uint64
	pageSize, offset, inode       uint64
	major, minor, nameSize, idLen uint32
	name, id                      uint64
}

// WritableMapping is the end of the mapping that holds addr, in the process whose
// open /proc/PID/maps is fd, if that process may write to it: PROCMAP_QUERY of
// proc_pid_maps(5), from Linux 6.11 on. ENOENT: there is none.
func WritableMapping(fd int, addr uint64) (end uint64, err error) {
	const (
		query    = 3<<30 | unsafe.Sizeof(mappingQuery{})<<16 | 'f'<<8 | 17 // PROCMAP_QUERY
		writable = 2                                                       // PROCMAP_QUERY_VMA_WRITABLE
	)
	q := mappingQuery{size: uint64(unsafe.Sizeof(mappingQuery{})), flags: writable, addr: addr}
	if err := retryIoctl(fd, query, unsafe.Pointer(&q)); err != nil {
		return 0, err
	}
	return q.end, nil
}
