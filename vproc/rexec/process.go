package rexec

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/proc"
)

// pidfdGroup is PIDFD_SIGNAL_PROCESS_GROUP of pidfd_send_signal(2), Linux 6.9.
const pidfdGroup = 1 << 2

// process is a command that was created here. Its pidfd names it, and its
// process group, beyond its end: signals cannot hit another.
type process struct {
	pid    int32
	group  int32 // its process group at home, if it has its surrogate's PID; else 0
	pidfd  *os.File
	events chan unix.WaitStatus // stops and the end; of capacity eventRoom
}

// eventRoom is how many stops and continuations may be unread; the end always
// finds room.
const eventRoom = 8

func newProcess(pid int32, pidfd *os.File) *process {
	return &process{pid: pid, pidfd: pidfd, events: make(chan unix.WaitStatus, eventRoom)}
}

// happened passes on what PID 1 reported; the server calls it for one report at
// a time, and not again after the end.
func (p *process) happened(ws unix.WaitStatus) {
	if ended := ws.Exited() || ws.Signaled(); ended || len(p.events) < eventRoom-1 {
		p.events <- ws
	}
}

func (p *process) send(sig unix.Signal, flags int) error {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) { err = unix.PidfdSendSignal(int(fd), sig, nil, flags) }); cerr != nil {
		return cerr
	}
	return err
}

// alive reports whether the process has not been reaped.
func (p *process) alive() bool { return p.send(0, 0) == nil }

// signal sends sig to the process group of the command: the one that it leads, or
// that of its surrogate.
func (p *process) signal(sig unix.Signal) {
	switch {
	case p.group == 0 || p.group == p.pid:
		_ = p.send(sig, pidfdGroup)
	case p.alive(): // so there is the group, unless it went to another one
		_ = unix.Kill(-int(p.group), sig)
	}
}

// kill kills the process, and the process group that it leads.
func (p *process) kill() {
	_ = p.send(unix.SIGKILL, pidfdGroup)
	_ = p.send(unix.SIGKILL, 0)
}

// inode identifies the process among all since boot (pidfs, Linux 6.9).
func (p *process) inode() (ino uint64, err error) {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return 0, err
	}
	var st unix.Stat_t
	if cerr := raw.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &st) }); cerr != nil {
		return 0, cerr
	}
	return st.Ino, err
}

// earlyExits holds reports of processes that are not known, since PID 1 may
// report the end of a short command before the spawn role's answer was read.
type earlyExits struct {
	list [64]earlyExit
	next int
}

type earlyExit struct {
	exit proc.Exit
	at   time.Time
}

// earlyTime is how long such a report is of use.
const earlyTime = 10 * time.Second

func (e *earlyExits) add(x proc.Exit) {
	if !x.Status.Exited() && !x.Status.Signaled() {
		return
	}
	e.list[e.next] = earlyExit{x, time.Now()}
	e.next = (e.next + 1) % len(e.list)
}

// take removes the newest report of pid.
func (e *earlyExits) take(pid int32) (unix.WaitStatus, bool) {
	for i := range e.list {
		at := (e.next + len(e.list) - 1 - i) % len(e.list)
		if x := e.list[at]; x.exit.PID == pid && time.Since(x.at) < earlyTime {
			e.list[at] = earlyExit{}
			return x.exit.Status, true
		}
	}
	return 0, false
}
