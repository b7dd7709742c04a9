package standin

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"ssi/internal/sys"
)

// A process has the terminal of its session from the moment at which it is made, if its parent has it (signal->tty in
// kernel/fork.c). So the leader takes it before it makes others, and what it made before has none.

// giveTerminal makes f the terminal of the session that leader leads.
func (m *Maker) giveTerminal(leader *standin, f *os.File) error {
	sh := m.sheet()
	sh.order(0, unix.SYS_CLOSE_RANGE, daemonFD, 1<<32-1, 0)
	sh.order(sys.Needed, unix.SYS_PIDFD_OPEN, uint64(os.Getpid()))
	sh.order(sys.Needed, unix.SYS_PIDFD_GETFD, daemonFD, uint64(f.Fd()))
	set := sh.order(0, unix.SYS_IOCTL, firstFD, unix.TIOCSCTTY, 0)
	sh.order(0, unix.SYS_CLOSE_RANGE, daemonFD, 1<<32-1, 0)
	if err := m.carryOut(leader, sh); err != nil {
		return err
	}
	if _, e, ran := m.arena.Result(set); e != 0 || !ran {
		return unplaceable("terminal of session %d: %w", leader.pid, e) // it has another one
	}
	m.terminals++
	leader.tty = m.terminals
	return nil
}

// takeTerminal undoes giveTerminal, which has succeeded if the session has a terminal.
func (m *Maker) takeTerminal(leader *standin) {
	if _, err := m.onTerminal(leader, unix.TIOCNOTTY, 0); err == nil {
		m.terminals++
		leader.tty = m.terminals
	}
}

// foreground makes group the foreground of the terminal of the session that leader
// leads.
func (m *Maker) foreground(leader *standin, group int32) error {
	e, err := m.onTerminal(leader, unix.TIOCSPGRP, group)
	if err == nil && e != 0 {
		err = e
	}
	if err != nil {
		return fmt.Errorf("terminal of session %d: %w", leader.pid, err)
	}
	return nil
}

// onTerminal has the leader make an ioctl(2) on the terminal of its session; arg is what its
// argument points to.
func (m *Maker) onTerminal(leader *standin, request uint64, arg int32) (unix.Errno, error) {
	sh := m.sheet()
	const (
		tty  = daemonFD  // the lowest that is free
		noFD = 1<<32 - 1 // the path is absolute
	)
	sh.order(0, unix.SYS_CLOSE_RANGE, tty, 1<<32-1, 0)
	open := sh.order(sys.Needed, unix.SYS_OPENAT, noFD, sh.text("/dev/tty"), unix.O_RDWR|unix.O_CLOEXEC)
	call := sh.order(0, unix.SYS_IOCTL, tty, request, sh.put(int32Bytes(arg)))
	sh.order(0, unix.SYS_CLOSE, tty)
	if err := m.carryOut(leader, sh); err != nil {
		return 0, err
	}
	if _, e, _ := m.arena.Result(open); e != 0 {
		return 0, e
	}
	_, e, _ := m.arena.Result(call)
	return e, nil
}

// hasChildren reports whether processes that Create made have this parent.
func (m *Maker) hasChildren(parent int32) bool {
	for _, p := range m.placed {
		if p == parent {
			return true
		}
	}
	return false
}
