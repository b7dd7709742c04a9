package rexec

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	firstBuffer = 2 << 10 // most commands write little
	pipeSize    = 1 << 20 // for those that write much; fs.pipe-max-size is 1 MiB
)

// pump sends what the command writes to f, as frames of kind k, until all
// holders have closed it.
func (c *command) pump(k kind, f *os.File) {
	var once sync.Once
	drained := func() { once.Do(c.draining.done) }
	defer c.outputs.done()
	defer drained()
	buf := make([]byte, headSize+firstBuffer)
	for {
		n, err := f.Read(buf[headSize:])
		if n > 0 {
			buf = c.forward(k, f, buf, n)
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded): // the command ended
			open := c.drain(k, f, &buf)
			drained()
			if !open || !c.awaitExited() || f.SetReadDeadline(time.Time{}) != nil {
				return
			}
		default: // the end; for a terminal EIO
			return
		}
	}
}

// awaitExited waits until the end was told, so that what comes later follows it.
func (c *command) awaitExited() bool {
	select {
	case <-c.exited:
		return true
	case <-c.done:
		return false
	}
}

// forward sends the n bytes of buf and returns a buffer for the next: a bigger
// one if this one was filled.
func (c *command) forward(k kind, f *os.File, buf []byte, n int) []byte {
	putHead(buf, k, n)
	c.write(buf[:headSize+n])
	if n < len(buf)-headSize || n >= maxData {
		return buf
	}
	if len(buf) == headSize+firstBuffer {
		growPipe(f)
	}
	return make([]byte, headSize+min(4*n, maxData))
}

// growPipe gives a pipe room for much data; a terminal has no such size.
func growPipe(f *os.File) {
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
	}
}

// drain sends what is in the pipe already, at most what fits in it, and reports
// whether others hold it open.
func (c *command) drain(k kind, f *os.File, buf *[]byte) (open bool) {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	for total := 0; total < pipeSize; {
		n := 0
		cerr := raw.Control(func(fd uintptr) {
			for {
				n, err = unix.Read(int(fd), (*buf)[headSize:])
				if !errors.Is(err, unix.EINTR) {
					return
				}
			}
		})
		switch {
		case cerr != nil || err != nil && !errors.Is(err, unix.EAGAIN) || err == nil && n == 0:
			return false
		case errors.Is(err, unix.EAGAIN):
			return true
		}
		total += n
		*buf = c.forward(k, f, *buf, n)
	}
	return true
}

// feed writes what the caller sends to the command's stdin and gives credit for
// it.
func (c *command) feed() {
	grown := false
	for {
		data, end := c.in.take()
		if len(data) > 0 {
			if !grown && len(data) > 1<<16 {
				grown = true
				growPipe(c.f.in)
			}
			if _, err := c.f.in.Write(data); err != nil { // the command closed it: nothing more is wanted
				return
			}
			c.in.done(len(data)) // before the caller can know
			c.write(frame(kindCredit, binary.BigEndian.AppendUint32(nil, uint32(len(data)))...))
		}
		if end {
			c.endInput()
			return
		}
	}
}

// endInput makes the command read the end of its stdin.
func (c *command) endInput() {
	if c.f.term == nil {
		_ = c.f.in.Close()
		return
	}
	if cc := c.req.term.Cc; len(cc) > unix.VEOF {
		_, _ = c.f.term.Write(cc[unix.VEOF : unix.VEOF+1])
	}
}

// queue holds input that was received and not yet written: at most stdinWindow
// bytes with what is being written.
type queue struct {
	mu     sync.Mutex
	change sync.Cond
	data   []byte
	spare  []byte // the buffer that take gave out last
	used   int    // bytes in data and being written
	ended  bool
	closed bool
}

func newQueue() *queue {
	q := &queue{}
	q.change.L = &q.mu
	return q
}

// put adds a copy of b; false means that the caller exceeds its credit.
func (q *queue) put(b []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.used+len(b) > stdinWindow {
		return false
	}
	if !q.ended {
		q.used += len(b)
		q.data = append(q.data, b...)
		q.change.Signal()
	}
	return true
}

// take waits for data and removes it; end means that nothing follows. The data
// is valid until the next take.
func (q *queue) take() (data []byte, end bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.data) == 0 && !q.ended && !q.closed {
		q.change.Wait()
	}
	if q.closed {
		return nil, true
	}
	data, q.data = q.data, q.spare[:0]
	q.spare = data
	return data, q.ended
}

func (q *queue) done(n int) {
	q.mu.Lock()
	q.used -= n
	q.mu.Unlock()
}

// end notes the end of the input.
func (q *queue) end() {
	q.mu.Lock()
	q.ended = true
	q.change.Signal()
	q.mu.Unlock()
}

// close makes take return at once.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.change.Signal()
	q.mu.Unlock()
}
