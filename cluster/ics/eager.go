package ics

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	// eagerRest is how much a connection for calls keeps that the kernel does
	// not take; who has more to say then waits, within its deadline.
	eagerRest = 1 << 20
	// eagerChunk is how much must get into the kernel within callUserTimeout.
	eagerChunk = 64 << 10
)

// eager is a connection whose writes never wait for the network: what the
// kernel takes at once is written by the caller, which is as fast as it gets;
// what it does not take follows by a goroutine. So calls keep their deadlines
// on a link that is stuck, and none is in the way of another.
type eager struct {
	net.Conn
	spawn func(func()) bool
	fail  func(error) // the connection is of no use any more

	raw syscall.RawConn // nil: everything goes by the goroutine
	try func(fd uintptr) bool
	arg []byte // of try: what to write
	n   int    // of try: what was written
	err error  // of try

	mu       sync.Mutex
	rest     []byte // not yet with the goroutine
	queued   int    // bytes of rest and with the goroutine
	draining bool   // the goroutine runs
	broken   error
	room     chan struct{} // closed when there is room; nil: nobody waits
}

func newEager(c net.Conn, spawn func(func()) bool, fail func(error)) *eager {
	e := &eager{Conn: c, spawn: spawn, fail: fail}
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			e.raw = raw
		}
	}
	e.try = func(fd uintptr) bool {
		e.n, e.err = ignoreEINTR(func() (int, error) { return syscall.Write(int(fd), e.arg) })
		return true
	}
	return e
}

// Write takes all of b or fails; an error is for good.
func (e *eager) Write(b []byte) (int, error) {
	e.mu.Lock()
	if e.broken != nil {
		defer e.mu.Unlock()
		return 0, e.broken
	}
	done := 0
	if !e.draining && e.raw != nil {
		if done, e.broken = e.writeNow(b); e.broken != nil {
			defer e.mu.Unlock()
			return done, e.broken
		}
	}
	e.rest = append(e.rest, b[done:]...)
	e.queued += len(b) - done
	start := e.queued > 0 && !e.draining
	e.draining = e.draining || start
	e.mu.Unlock()
	if start && !e.spawn(e.drain) {
		e.stop(net.ErrClosed)
		return done, net.ErrClosed
	}
	return len(b), nil
}

func (e *eager) writeNow(b []byte) (int, error) {
	e.arg = b
	err := e.raw.Write(e.try)
	e.arg = nil
	switch {
	case err != nil:
		return 0, err
	case e.err != nil && !errors.Is(e.err, syscall.EAGAIN):
		return 0, &net.OpError{Op: "write", Net: "tcp", Addr: e.RemoteAddr(), Err: e.err}
	}
	return e.n, nil
}

// drain writes what is left until nothing is.
func (e *eager) drain() {
	for {
		e.mu.Lock()
		b := e.rest
		e.rest = nil
		if len(b) == 0 || e.broken != nil {
			_ = e.SetWriteDeadline(time.Time{}) // it would be in the way of the next write
			e.draining = false
			e.mu.Unlock()
			return
		}
		e.mu.Unlock()
		for len(b) > 0 {
			part := b[:min(len(b), eagerChunk)]
			_ = e.SetWriteDeadline(time.Now().Add(callUserTimeout)) // a dead descriptor fails in Write
			if _, err := e.Conn.Write(part); err != nil {
				e.stop(err)
				e.fail(err)
				return
			}
			b = b[len(part):]
			e.mu.Lock()
			e.queued -= len(part)
			e.releaseLocked()
			e.mu.Unlock()
		}
	}
}

// full is nil when there is room for a frame, else closed when there may be.
func (e *eager) full() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.broken != nil || e.queued < eagerRest {
		return nil
	}
	if e.room == nil {
		e.room = make(chan struct{})
	}
	return e.room
}

// stop makes all writes fail and wakes who waits for room.
func (e *eager) stop(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.broken == nil {
		e.broken = err
	}
	e.rest = nil
	e.releaseLocked()
}

func (e *eager) releaseLocked() {
	if e.room != nil && (e.queued < eagerRest || e.broken != nil) {
		close(e.room)
		e.room = nil
	}
}
