package rexec

import (
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/pty"
)

// screen is this process's terminal while the command has one.
type screen struct {
	f       *os.File
	modes   unix.Termios  // as found
	raw     atomic.Bool   // it is raw, and may be read
	entered chan struct{} // of capacity 1: it was made raw
	moved   chan struct{} // of capacity 1: somebody took it from this process, which was not stopped for that
}

// enter makes the terminal raw, if this process is in the foreground.
func (t *screen) enter() bool {
	if !pty.Foreground(t.f) { // changing it, or reading, would stop this process
		t.raw.Store(false)
		return false
	}
	if pty.SetModes(t.f, pty.Raw(t.modes)) != nil {
		return false
	}
	t.raw.Store(true)
	select {
	case t.entered <- struct{}{}:
	default:
	}
	return true
}

// readable reports whether reading the terminal would neither stop this process
// nor take the input of another.
func (t *screen) readable() bool {
	if !t.raw.Load() {
		return false
	}
	if !pty.Foreground(t.f) {
		select {
		case t.moved <- struct{}{}:
		default:
		}
		return false
	}
	return true
}

// restore gives the terminal back as it was found.
func (t *screen) restore() {
	if t.raw.Swap(false) {
		_ = pty.SetModes(t.f, &t.modes)
	}
}

// credit is how many bytes of stdin may be sent.
type credit struct {
	mu     sync.Mutex
	change sync.Cond
	n      int
	closed bool
}

func newCredit() *credit {
	c := &credit{n: stdinWindow}
	c.change.L = &c.mu
	return c
}

func (c *credit) add(n int) {
	c.mu.Lock()
	c.n = min(c.n+n, stdinWindow)
	c.change.Signal()
	c.mu.Unlock()
}

// take waits for credit and takes at most limit; 0 means that it is over.
func (c *credit) take(limit int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.n == 0 && !c.closed {
		c.change.Wait()
	}
	if c.closed {
		return 0
	}
	n := min(c.n, limit)
	c.n -= n
	return n
}

func (c *credit) close() {
	c.mu.Lock()
	c.closed = true
	c.change.Signal()
	c.mu.Unlock()
}

// stdin sends this process's input to the command.
type stdin struct {
	s    *caller
	wake *os.File // read end: becomes readable when sending shall stop
	end  *os.File // write end
	tty  bool
	done chan struct{}
}

const (
	inputBuffer = maxData
	heldTime    = 50 * time.Millisecond  // how often to look whether the terminal may be read
	stuckTime   = 100 * time.Millisecond // for a read that another reader of the terminal forestalled
)

func newStdin(s *caller) (*stdin, error) {
	in := &stdin{s: s, done: make(chan struct{})}
	if s.stdin == nil {
		return in, nil
	}
	in.tty = pty.IsTerminal(s.stdin)
	var err error
	in.wake, in.end, err = os.Pipe()
	return in, err
}

// stop ends send. A read that blocks all the same is left behind; only a reader
// that took the input between poll and read makes it block, or an Options.Stdin
// that is not a file.
func (in *stdin) stop() {
	if in.end != nil {
		_ = in.end.Close()
	}
}

// send runs until the end of the input or stop.
func (in *stdin) send() {
	go func() {
		defer close(in.done)
		in.copy()
	}()
	select {
	case <-in.done:
	case <-in.s.leaving:
		select {
		case <-in.done:
		case <-time.After(stuckTime):
			return // wake stays open for the one left behind
		}
	}
	if in.wake != nil {
		_ = in.wake.Close()
	}
}

func (in *stdin) copy() {
	if in.s.o.Stdin == nil {
		return
	}
	buf := make([]byte, 0)
	for {
		if in.s.stdin != nil && !in.await() {
			return
		}
		n := in.s.credit.take(inputBuffer)
		if n == 0 {
			return
		}
		if len(buf) == 0 {
			buf = make([]byte, headSize+firstBuffer)
		}
		room := min(n, len(buf)-headSize)
		got, err := in.read(buf[headSize : headSize+room])
		in.s.credit.add(n - max(got, 0))
		if got > 0 {
			putHead(buf, kindStdin, got)
			in.s.send(buf[:headSize+got])
		}
		if got == room && len(buf) < headSize+inputBuffer {
			buf = make([]byte, headSize+inputBuffer)
		}
		if err != nil {
			in.s.send(frame(kindStdinEOF))
			return
		}
	}
}

// read reads once; any error is the end of the input.
func (in *stdin) read(b []byte) (int, error) {
	if in.s.stdin == nil {
		return in.s.o.Stdin.Read(b)
	}
	var n int
	var err error
	if cerr := in.control(func(fd int) {
		for {
			n, err = unix.Read(fd, b)
			if err != unix.EINTR {
				return
			}
		}
	}); cerr != nil {
		return 0, cerr
	}
	switch {
	case err == unix.EAGAIN: // somebody else was faster
		return 0, nil
	case err == nil && n == 0:
		return 0, io.EOF
	}
	return n, err
}

// control calls do with the descriptor of stdin, without changing it: its flags
// are shared with other processes.
func (in *stdin) control(do func(fd int)) error {
	raw, err := in.s.stdin.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { do(int(fd)) })
}

// await waits until there is input that may be read; false means stop.
func (in *stdin) await() bool {
	for {
		mine := in.mayRead()
		if !mine && in.s.term != nil {
			select {
			case <-in.s.term.entered:
				continue
			case <-in.s.leaving:
				return false
			}
		}
		events, timeout := int16(unix.POLLIN), -1
		if in.tty && in.s.term == nil {
			timeout = int(heldTime / time.Millisecond) // to look again who has the terminal
		}
		if !mine {
			events = 0
		}
		var stop, ready bool
		err := in.control(func(fd int) {
			wake := int(in.wake.Fd())
			fds := []unix.PollFd{{Fd: int32(wake), Events: unix.POLLIN}, {Fd: int32(fd), Events: events}}
			if !mine {
				fds = fds[:1] // a hang-up would be reported again and again
			}
			_, err := unix.Poll(fds, timeout)
			stop = fds[0].Revents != 0
			ready = err == nil && mine && fds[1].Revents != 0
		})
		if err != nil || stop {
			return false
		}
		if ready && in.mayRead() {
			return true
		}
	}
}

// mayRead reports whether the input is for the command. A terminal is while
// this process is in its foreground and, if the command has no terminal itself,
// nobody has taken it out of line mode: that is a pager or an editor at the other
// end of a pipe.
func (in *stdin) mayRead() bool {
	switch {
	case !in.tty:
		return true
	case in.s.term != nil:
		return in.s.term.readable()
	}
	if !pty.Foreground(in.s.stdin) {
		return false
	}
	modes, err := pty.Modes(in.s.stdin)
	return err == nil && modes.Lflag&unix.ICANON != 0
}
