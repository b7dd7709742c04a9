package lab

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// terminalRelay joins the user's terminal to one in a node: raw mode here, every
// byte and the window size there.
type terminalRelay struct {
	in      *os.File // the user's terminal, opened anew so that a read can be ended
	fd      int      // of the user's terminal
	old     *term.State
	master  *os.File
	signals chan os.Signal
	wg      sync.WaitGroup
	outDone chan struct{}
	stop    chan struct{}
}

// relayTerminal takes over the terminal in; close gives it back as it was.
func relayTerminal(in, out, master *os.File) (*terminalRelay, error) {
	fd := int(in.Fd())
	fail := func(err error) (*terminalRelay, error) {
		_ = master.Close()
		return nil, fmt.Errorf("lab: terminal: %w", err)
	}
	// The descriptor itself may be shared with the user's shell: its flags are
	// not ours to change.
	mine, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return fail(err)
	}
	if err := unix.SetNonblock(int(master.Fd()), true); err != nil {
		_ = mine.Close()
		return fail(err)
	}
	pollable, err := dupPollable(master)
	if err != nil {
		_ = mine.Close()
		return fail(err)
	}
	_ = master.Close()
	old, err := term.MakeRaw(fd)
	if err != nil {
		_, _ = mine.Close(), pollable.Close()
		return nil, fmt.Errorf("lab: terminal: %w", err)
	}
	r := &terminalRelay{in: mine, fd: fd, old: old, master: pollable, signals: make(chan os.Signal, 1), outDone: make(chan struct{}), stop: make(chan struct{})}
	signal.Notify(r.signals, unix.SIGWINCH)
	r.wg.Go(func() { _, _ = io.Copy(r.master, r.in) })
	r.wg.Go(func() {
		defer close(r.outDone)
		_, _ = io.Copy(out, r.master)
	})
	r.wg.Go(r.resize)
	return r, nil
}

// dupPollable gives a descriptor to a new os.File that the runtime polls, so that
// deadlines work.
func dupPollable(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func (r *terminalRelay) resize() {
	for {
		if ws, err := unix.IoctlGetWinsize(r.fd, unix.TIOCGWINSZ); err == nil {
			if raw, err := r.master.SyscallConn(); err == nil {
				_ = raw.Control(func(fd uintptr) { _ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, ws) })
			}
		}
		select {
		case <-r.signals:
		case <-r.stop:
			return
		}
	}
}

// close shows the rest of the output and restores the terminal.
func (r *terminalRelay) close() {
	signal.Stop(r.signals)
	close(r.stop)
	_ = r.in.SetReadDeadline(time.Unix(1, 0))
	// Processes that the command left behind may keep the terminal open.
	_ = r.master.SetReadDeadline(time.Now().Add(drainTime))
	<-r.outDone
	_ = r.master.SetWriteDeadline(time.Unix(1, 0))
	r.wg.Wait()
	_, _ = r.in.Close(), r.master.Close()
	_ = term.Restore(r.fd, r.old)
}
