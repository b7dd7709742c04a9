package remote

import (
	"syscall"

	"golang.org/x/sys/unix"

	"ssi/vproc/call"
)

// combine is what one kernel would have said that had the processes of all: the
// outcomes of the same call to many processes, of several nodes or of single
// processes. ESRCH says that there was nobody. The rules are the kernel's own:
//
//	kill, a group    0 if one was signalled, else the last error   __kill_pgrp_info in kernel/signal.c
//	kill, everyone   the last that is not EPERM, else 0            kill_something_info
//	getpriority      the highest                                   getpriority in kernel/sys.c
//	setpriority      the last error, else 0                        set_one_prio
//	ioprio_get       the highest, which is the lowest number       ioprio_get in block/ioprio.c
//	ioprio_set       the first error, else 0                       ioprio_set
//
// The order of processes is the kernel's secret, here it is that of the nodes. The
// others go on after an error of ioprio_set.
func combine(r *call.Request, all []call.Reply) call.Reply {
	var total call.Reply
	found := false
	for _, one := range all {
		switch {
		case one.Errno == unix.ESRCH:
		case !found:
			total, found = one, true
		default:
			total = better(r, total, one)
		}
	}
	if !found {
		return call.Reply{Errno: unix.ESRCH}
	}
	if everyone(r) && total.Errno == unix.EPERM {
		return call.Reply{}
	}
	return call.Reply{Ret: total.Ret, Errno: total.Errno}
}

func everyone(r *call.Request) bool { return r.Nr == call.Kill && r.Int(0) == -1 }

// better is the outcome of both, the later one last.
func better(r *call.Request, a, b call.Reply) call.Reply {
	failed := func(e syscall.Errno) bool { return e != 0 }
	switch r.Nr {
	case call.Kill:
		if everyone(r) && b.Errno == unix.EPERM || !everyone(r) && !failed(a.Errno) {
			return a
		}
		return b
	case call.Setpriority:
		if !failed(b.Errno) {
			return a
		}
		return b
	case call.IoprioSet:
		if failed(a.Errno) {
			return a
		}
		return b
	}
	switch { // what asks
	case failed(b.Errno):
		return a
	case failed(a.Errno):
		return b
	case r.Nr == call.IoprioGet:
		return call.Reply{Ret: min(a.Ret, b.Ret)}
	}
	return call.Reply{Ret: max(a.Ret, b.Ret)}
}
