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

// The first argument of the role says where the command starts.
const (
	placeForeground = "foreground"
	placeBackground = "background"
)

// controlFD is the leader's end of the control socket (SOCK_SEQPACKET).
const controlFD = 3

// RunSession is the role session: it leads the session of the terminal at
// descriptor 0, runs a command in a process group of its own, and ends the way
// the command did. It returns the exit status for the process. args[0] says
// whether the command has the terminal at first, args[1] is the path to execute or
// empty; the rest is the command (proc.Spec).
//
// While the caller is in the background of its terminal, this process's own group
// has this one: so the kernel stops the command when it uses it (SIGTTIN,
// SIGTTOU), as it would at home.
func RunSession(args []string) int {
	unix.CloseOnExec(controlFD)
	if len(args) < 3 {
		return 127
	}
	child := make(chan os.Signal, 1)
	signal.Notify(child, unix.SIGCHLD)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, unix.SIGHUP, unix.SIGTERM)
	attr := &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{
		Setpgid: true, Foreground: args[0] == placeForeground, Ctty: 0,
	}}
	pid, f := create(&proc.Spec{Argv: args[2:], Path: args[1], Env: attr.Env}, attr)
	if f != nil {
		tell(f.Append([]byte{proc.MsgFailed}))
		return 126
	}
	// To give and take the terminal later this process, of the background, must
	// not be stopped for it. Not before the command is there: it would inherit it.
	signal.Ignore(unix.SIGTTOU, unix.SIGTTIN)
	tell(binary.BigEndian.AppendUint32([]byte{proc.MsgStarted}, uint32(pid)))
	orders := make(chan []byte)
	var last byte            // number of the last MsgContinue: who sent a later one need not follow the stop before it
	go listenControl(orders) // ends with the process
	for {
		select {
		case <-child:
			if ws, ended := collect(pid, last); ended {
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
			if obey(pid, m); m[0] == proc.MsgContinue {
				last = m[len(m)-1]
			}
		}
	}
}

func obey(pid int, m []byte) {
	switch {
	case m[0] == proc.MsgSignal && len(m) == 2:
		_ = unix.Kill(-pid, unix.Signal(m[1]))
	case m[0] == proc.MsgContinue && len(m) == 3:
		place(pid, m[1]&proc.InBackground != 0)
		if m[1]&proc.NoSignal == 0 {
			_ = unix.Kill(-pid, unix.SIGCONT)
		}
	}
}

// place gives the terminal to the command or takes it. What the command itself
// made the foreground, as a shell does with its jobs, stays that.
func place(pid int, background bool) {
	own := unix.Getpgrp()
	switch has, err := unix.IoctlGetInt(0, unix.TIOCGPGRP); {
	case background:
		_ = unix.IoctlSetPointerInt(0, unix.TIOCSPGRP, own)
	case err != nil || has == own:
		_ = unix.IoctlSetPointerInt(0, unix.TIOCSPGRP, pid)
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
func collect(pid int, last byte) (unix.WaitStatus, bool) {
	for {
		var ws unix.WaitStatus
		n, err := unix.Wait4(pid, &ws, unix.WNOHANG|unix.WUNTRACED|unix.WCONTINUED, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil || n == 0:
			return 0, false
		case ws.Stopped():
			tell([]byte{proc.MsgStopped, byte(ws.StopSignal()), last})
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
