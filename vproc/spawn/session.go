package spawn

import (
	"encoding/binary"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"ssi/internal/proc"
)

// SessionRole is the name of the hidden role that RunSession is.
const SessionRole = "session"

// controlFD is the leader's end of the control socket (SOCK_SEQPACKET).
const controlFD = 3

// RunSession is the role session: it leads the session of the terminal at
// descriptor 0, runs the command args in the foreground of it, and ends the way
// the command did. It returns the exit status for the process.
func RunSession(args []string) int {
	unix.CloseOnExec(controlFD)
	if len(args) == 0 {
		return 127
	}
	child := make(chan os.Signal, 1)
	signal.Notify(child, unix.SIGCHLD)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, unix.SIGHUP, unix.SIGTERM)
	attr := &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Foreground: true, Ctty: 0}}
	pid, f := create(args, "", attr)
	if f != nil {
		tell(f.Append([]byte{proc.MsgFailed}))
		return 126
	}
	// The command has the terminal now; to give it back later this process, of
	// the background, must not be stopped for it. Not before the command is
	// there: it would inherit it.
	signal.Ignore(unix.SIGTTOU, unix.SIGTTIN)
	tell(binary.BigEndian.AppendUint32([]byte{proc.MsgStarted}, uint32(pid)))
	orders := make(chan []byte)
	go listenControl(orders) // ends with the process
	for {
		select {
		case <-child:
			if ws, ended := collect(pid); ended {
				return die(ws)
			}
		case s := <-hangup:
			_ = unix.Kill(-pid, s.(syscall.Signal))
			_ = unix.Kill(-pid, unix.SIGCONT)
		case m, ok := <-orders:
			if !ok { // the node role is gone
				orders = nil
				_ = unix.Kill(-pid, unix.SIGHUP)
				_ = unix.Kill(-pid, unix.SIGCONT)
				continue
			}
			obey(pid, m)
		}
	}
}

func obey(pid int, m []byte) {
	switch {
	case m[0] == proc.MsgSignal && len(m) == 2:
		_ = unix.Kill(-pid, unix.Signal(m[1]))
	case m[0] == proc.MsgContinue:
		_ = unix.IoctlSetPointerInt(0, unix.TIOCSPGRP, pid)
		_ = unix.Kill(-pid, unix.SIGCONT)
	}
}

func tell(m []byte) { _ = unix.Sendmsg(controlFD, m, nil, nil, unix.MSG_NOSIGNAL) }

func listenControl(orders chan<- []byte) {
	defer close(orders)
	buf := make([]byte, 16)
	for {
		n, err := unix.Read(controlFD, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		orders <- append([]byte(nil), buf[:n]...)
	}
}

// collect tells what happened to the command and whether it ended.
func collect(pid int) (unix.WaitStatus, bool) {
	for {
		var ws unix.WaitStatus
		n, err := unix.Wait4(pid, &ws, unix.WNOHANG|unix.WUNTRACED|unix.WCONTINUED, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil || n == 0:
			return 0, false
		case ws.Stopped():
			tell([]byte{proc.MsgStopped, byte(ws.StopSignal())})
		case ws.Continued():
			tell([]byte{proc.MsgContinued})
		default:
			return ws, true
		}
	}
}

// die ends this process with the command's status or by its signal.
func die(ws unix.WaitStatus) int {
	if !ws.Signaled() {
		return ws.ExitStatus()
	}
	proc.DieBy(ws.Signal())
	return 128 + int(ws.Signal())
}
