package rexec

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/pty"
)

// files are the two sides of a command's files.
type files struct {
	child []*os.File // 0, 1, 2 and the session leader's control socket, for the spawn role

	term    *os.File // the terminal's master; also in, out
	in      *os.File // nil: the command's stdin is /dev/null
	out     *os.File
	err     *os.File // nil: stderr goes to the terminal
	control *os.File // to the session leader; nil without a terminal
}

// open makes the files of a command. The user owns them, so that a program may
// open /dev/stdout again.
func (f *files) open(req *request) (err error) {
	defer func() {
		if err != nil {
			f.closeChild()
			f.close()
		}
	}()
	if req.term != nil {
		if err := f.openTerminal(req); err != nil {
			return err
		}
		if req.files&splitStderr == 0 {
			return nil
		}
		f.child[2], f.err, err = pipe(req, false)
		return err
	}
	f.child = make([]*os.File, 3)
	if req.files&noStdin != 0 {
		f.child[0], err = os.Open(os.DevNull)
	} else {
		f.child[0], f.in, err = pipe(req, true)
	}
	if err == nil {
		f.child[1], f.out, err = pipe(req, false)
	}
	if err == nil {
		f.child[2], f.err, err = pipe(req, false)
	}
	return err
}

func (f *files) openTerminal(req *request) error {
	master, slave, err := pty.Open()
	if err != nil {
		return err
	}
	f.term, f.in, f.out = master, master, master
	f.child = []*os.File{slave, slave, slave, nil}
	if err := slave.Chown(int(req.spec.UID), -1); err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	if err := slave.Chmod(0o620); err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	modes, err := pty.Modes(slave)
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	if err := pty.SetModes(slave, termios(*modes, req.term)); err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	if err := pty.SetSize(master, req.term.Rows, req.term.Cols); err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	if err := unix.SetNonblock(pair[0], true); err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	f.control, f.child[3] = os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "leader")
	return nil
}

// pipe makes a pipe whose near end the runtime's poller serves. read tells
// that the child reads.
func pipe(req *request, read bool) (theirs, ours *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	child, mine := fds[1], fds[0]
	if read {
		child, mine = fds[0], fds[1]
	}
	if err = unix.SetNonblock(mine, true); err == nil && req.spec.UID != 0 {
		err = unix.Fchown(child, int(req.spec.UID), int(req.spec.GID))
	}
	if err != nil {
		_ = unix.Close(child)
		_ = unix.Close(mine)
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	return os.NewFile(uintptr(child), "|"), os.NewFile(uintptr(mine), "|"), nil
}

// closeChild closes what the process has got.
func (f *files) closeChild() {
	for _, c := range f.child {
		if c != nil {
			_ = c.Close() // the terminal is there three times
		}
	}
	f.child = nil
}

// close closes our side, which ends every goroutine that uses it.
func (f *files) close() {
	for _, c := range []*os.File{f.in, f.out, f.err, f.control} {
		if c != nil {
			_ = c.Close()
		}
	}
}

// closeControl closes the socket of the session leader.
func (f *files) closeControl() {
	if f.control != nil {
		_ = f.control.Close()
		f.control = nil
	}
}

// expire makes the reads of outputs return.
func (f *files) expire() {
	for _, c := range []*os.File{f.out, f.err} {
		if c != nil {
			_ = c.SetReadDeadline(time.Unix(1, 0))
		}
	}
}
