package gate

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// keptCallers is how many callers of a listener are known.
const keptCallers = 16

// known is of which of the last callers of a listener it is known whether their PID
// namespace is below ours. That belongs to the number of a thread (struct pid of the
// kernel) and not to its program, so neither execve(2) nor unshare(2) changes it; and
// the number is the same one while a pidfd of it does not poll as ended. It is the
// receiver's, without a lock.
type known struct {
	ids  *identities
	last [keptCallers]struct {
		tid    uint32 // 0: nobody
		pidfd  int
		nested bool
	}
}

// nested tells whether thread tid is in a PID namespace below that of this process.
func (k *known) nested(tid uint32) (bool, error) {
	p := &k.last[tid%keptCallers]
	if p.tid == tid && running(p.pidfd) {
		return p.nested, nil
	}
	k.forget(tid)
	const thread = unix.O_EXCL // PIDFD_THREAD
	pidfd, err := unix.PidfdOpen(int(tid), thread)
	if err != nil {
		pidfd = -1 // no room, or an older kernel: it is asked each time
	}
	ns, err := k.ids.namespace(strconv.FormatUint(uint64(tid), 10) + "/ns/pid")
	if pidfd >= 0 {
		// What was read is of who had the number before and has it after.
		if err == nil && running(pidfd) {
			p.tid, p.pidfd, p.nested = tid, pidfd, ns != k.ids.pidNS
		} else {
			_ = unix.Close(pidfd)
		}
	}
	return err == nil && ns != k.ids.pidNS, err
}

// forget makes room for tid.
func (k *known) forget(tid uint32) {
	if p := &k.last[tid%keptCallers]; p.tid != 0 {
		_ = unix.Close(p.pidfd)
		p.tid = 0
	}
}

func (k *known) close() {
	for tid := range uint32(keptCallers) {
		k.forget(tid)
	}
}

// running tells whether the thread of a pidfd has not ended; false also if that cannot
// be told.
func running(pidfd int) bool {
	p := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return n == 0 && err == nil
}
