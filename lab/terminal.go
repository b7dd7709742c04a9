package lab

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/pty"
)

// terminalRelay joins the user's terminal to one in a node: raw mode here, every
// byte and the window size there.
type terminalRelay struct {
	in      *os.File      // the user's terminal, opened anew so that a read can be ended
	user    *os.File      // the user's terminal
	old     *unix.Termios // its modes before
	master  *os.File
	signals chan os.Signal
	wg      sync.WaitGroup
	outDone chan struct{}
	stop    chan struct{}
}

// relayTerminal takes over the terminal in; close gives it back as it was.
func relayTerminal(in, out, master *os.File) (_ *terminalRelay, err error) {
	r := &terminalRelay{user: in, signals: make(chan os.Signal, 1), outDone: make(chan struct{}), stop: make(chan struct{})}
	r.master, err = pollable(master)
	_ = master.Close()
	if err != nil {
		return nil, fmt.Errorf("lab: terminal: %w", err)
	}
	// The descriptor itself may be shared with the user's shell: its flags are
	// not ours to change.
	r.in, err = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", in.Fd()), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err == nil {
		if r.old, err = pty.Modes(in); err == nil {
			err = pty.SetModes(in, pty.Raw(*r.old))
		}
		if err != nil {
			_ = r.in.Close()
		}
	}
	if err != nil {
		_ = r.master.Close()
		return nil, fmt.Errorf("lab: terminal: %w", err)
	}
	signal.Notify(r.signals, unix.SIGWINCH)
	r.wg.Go(func() { _, _ = io.Copy(r.master, r.in) })
	r.wg.Go(func() {
		defer close(r.outDone)
		_, _ = io.Copy(out, r.master)
	})
	r.wg.Go(r.resize)
	return r, nil
}

// pollable opens the descriptor of f anew for the runtime's poller, so that
// deadlines work.
func pollable(f *os.File) (*os.File, error) {
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
		if rows, cols, err := pty.Size(r.user); err == nil {
			_ = pty.SetSize(r.master, rows, cols)
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
	_ = pty.SetModes(r.user, r.old)
}
