package proctab

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/sys"
)

// maxSignal is SIGRTMAX of Linux (signal(7)).
const maxSignal = 64

// outcome is what became of one target.
type outcome struct {
	errno syscall.Errno // what the kernel of the node said
	moved id.Node       // nothing was done: it lives there
}

// act calls f for each target that lives here on a thread with the caller's credentials.
func (r *Reader) act(who sys.Credentials, targets []api.ProcessTarget, f func(id.PID) error) ([]outcome, error) {
	out := make([]outcome, len(targets))
	err := sys.As(who, func() error {
		for i, t := range targets {
			if out[i].moved = r.lives(t.PID); out[i].moved == 0 {
				out[i].errno = errnoOf(r.one(t, f))
			}
		}
		return nil
	})
	if err != nil { // the thread could not take the credentials, so nothing was done
		return nil, errno.New(errno.Permission, "act for a user", r.self, "user %d: %w; the ssi daemon must run as root", who.UID, err)
	}
	return out, nil
}

func (r *Reader) one(t api.ProcessTarget, f func(id.PID) error) error {
	if t.StartTicks != 0 {
		if got, err := r.startTicks(t.PID); err != nil || got != t.StartTicks {
			return unix.ESRCH // the PID belongs to another process by now
		}
	}
	switch {
	case t.PID < 0:
		return r.group(-t.PID, f)
	case r.hidden(t.PID):
		return unix.ESRCH
	}
	return f(t.PID)
}

func errnoOf(err error) syscall.Errno {
	var e syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e
	default:
		return unix.EIO
	}
}

func (r *Reader) signal(who sys.Credentials, targets []api.ProcessTarget, signal int) ([]outcome, error) {
	return r.act(who, targets, func(pid id.PID) error {
		return unix.Kill(int(pid), syscall.Signal(signal))
	})
}

func (r *Reader) renice(who sys.Credentials, targets []api.ProcessTarget, nice int) ([]outcome, error) {
	return r.act(who, targets, func(pid id.PID) error {
		if pid < 0 {
			return unix.Setpriority(unix.PRIO_PGRP, int(-pid), nice)
		}
		return unix.Setpriority(unix.PRIO_PROCESS, int(pid), nice)
	})
}

// checkTargets refuses what must never reach a kernel.
func checkTargets(op string, targets []api.ProcessTarget) error {
	if len(targets) == 0 || len(targets) > api.MaxPIDs {
		return errno.New(errno.Invalid, op, 0, "%d processes named; 1 to %d are possible in one call", len(targets), api.MaxPIDs)
	}
	for _, t := range targets {
		switch {
		case t.PID == 0 || t.PID == -1:
			return errno.New(errno.Invalid, op, 0, "%d stands for many processes of one machine; name the processes or the group", t.PID)
		case t.PID < 0 && t.StartTicks != 0:
			return errno.New(errno.Invalid, op, 0, "a start time names a process, and %d is a group", t.PID)
		case t.PID < -maxPID || t.PID > maxPID:
			return errno.New(errno.Invalid, op, 0, "%d is not a process ID", t.PID)
		case t.Node > id.MaxNode:
			return errno.New(errno.Invalid, op, 0, "%d is not a node number (1 to %d)", t.Node, id.MaxNode)
		}
	}
	return nil
}

// maxPID is PID_MAX_LIMIT of include/linux/threads.h.
const maxPID = 1 << 22

func checkSignal(n int) error {
	if n < 0 || n > maxSignal {
		return errno.New(errno.Invalid, "signal", 0, "%d is not a signal (0 to %d)", n, maxSignal)
	}
	return nil
}
