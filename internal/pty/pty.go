// Package pty opens pseudoterminals and changes the modes of terminals; see
// pty(7) and termios(3).
//
// It has no state and no goroutines. Who puts a terminal into raw mode restores
// it. The package must never make a terminal the controlling one of this
// process.
package pty

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Open opens a new pseudoterminal. master is served by the runtime's poller, so
// that deadlines work; slave is blocking, for a new process. Neither is
// inherited by programs.
func Open() (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open /dev/ptmx: %w", err)
	}
	fail := func(op string, err error) (*os.File, *os.File, error) {
		_ = unix.Close(fd)
		return nil, nil, fmt.Errorf("%s: %w", op, err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return fail("unlock pseudoterminal", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return fail("number of pseudoterminal", err)
	}
	name := "/dev/pts/" + strconv.Itoa(n)
	sfd, err := unix.Open(name, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail("open "+name, err)
	}
	return os.NewFile(uintptr(fd), "/dev/ptmx"), os.NewFile(uintptr(sfd), name), nil
}

// IsTerminal reports whether f is a terminal.
func IsTerminal(f *os.File) bool {
	_, err := Modes(f)
	return err == nil
}

// control calls do with the descriptor of f, which stays as it is (Fd would make
// it blocking).
func control(f *os.File, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var derr error
	if err := raw.Control(func(fd uintptr) { derr = do(int(fd)) }); err != nil {
		return err
	}
	return derr
}

// Modes returns the modes of the terminal f.
func Modes(f *os.File) (t *unix.Termios, err error) {
	err = control(f, func(fd int) error {
		t, err = unix.IoctlGetTermios(fd, unix.TCGETS)
		return err
	})
	return t, err
}

// SetModes sets the modes of the terminal f once its output is written.
func SetModes(f *os.File, t *unix.Termios) error {
	return control(f, func(fd int) error { return unix.IoctlSetTermios(fd, unix.TCSETSW, t) })
}

// Raw returns t changed as by cfmakeraw(3): every byte passes as it is.
func Raw(t unix.Termios) *unix.Termios {
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag &^= unix.CSIZE | unix.PARENB
	t.Cflag |= unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return &t
}

// Size returns the rows and columns of the terminal f.
func Size(f *os.File) (rows, cols uint16, err error) {
	err = control(f, func(fd int) error {
		w, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		if err == nil {
			rows, cols = w.Row, w.Col
		}
		return err
	})
	return rows, cols, err
}

// SetSize sets the rows and columns of the terminal f; its foreground process
// group gets SIGWINCH.
func SetSize(f *os.File, rows, cols uint16) error {
	return control(f, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
}

// ForegroundGroup is the foreground process group of the terminal whose master is f,
// 0 if there is none.
func ForegroundGroup(f *os.File) (pgrp int, err error) {
	err = control(f, func(fd int) (err error) {
		pgrp, err = unix.IoctlGetInt(fd, unix.TIOCGPGRP)
		return err
	})
	return pgrp, err
}

// Foreground reports whether this process belongs to the foreground process
// group of the terminal f.
func Foreground(f *os.File) bool {
	fg := -1
	err := control(f, func(fd int) (err error) {
		fg, err = unix.IoctlGetInt(fd, unix.TIOCGPGRP)
		return err
	})
	return err == nil && fg == unix.Getpgrp()
}
