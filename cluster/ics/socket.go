package ics

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
)

// errCut is the end of a connection whose TLS did not end first: the peer
// crashed, or somebody cut it. crypto/tls takes that for io.EOF at the boundary
// of records, which would make half a file look whole.
var errCut = fmt.Errorf("ended without notice: %w", io.ErrUnexpectedEOF)

// bulkChunk is how much of a bulk stream is encrypted, written or read in one
// turn: large enough that system calls cost little, short enough (some 50 µs)
// that nobody waits long for a turn.
const bulkChunk = 128 << 10

// turns bounds how many goroutines work on bulk data at once in encryption and
// in system calls that move data; never while they wait for the network. It
// leaves a processor of the Go scheduler to everything else: without an idle
// one, Go looks for arrived messages only every 10 ms (sysmon).
type turns chan struct{}

func (t turns) take() { t <- struct{}{} }
func (t turns) give() { <-t }

// socket is what TLS runs on: the connection, with its end told from the
// orderly end of the TLS session above. For bulk streams (after pace) it
// gathers records into large reads and writes, in turns.
type socket struct {
	net.Conn
	raw   syscall.RawConn // nil: not paced
	turns turns

	wmu    sync.Mutex
	gather bool // records are collected until flush
	out    []byte
	broken error // of the first write that failed: records may be missing since

	in, inBuf []byte // read and not yet taken by TLS; its storage
	holding   bool   // the reader has a turn, while TLS decrypts
}

// pace makes it the socket of a bulk stream. Before first use after the hello.
func (s *socket) pace(t turns) {
	if sc, ok := s.Conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			s.raw, s.turns = raw, t
		}
	}
}

// Read is called by TLS, by one goroutine at a time.
func (s *socket) Read(b []byte) (int, error) {
	if s.raw == nil {
		n, err := s.Conn.Read(b)
		if errors.Is(err, io.EOF) {
			err = errCut
		}
		return n, err
	}
	s.rest()
	if len(s.in) == 0 {
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	s.turns.take()
	s.holding = true
	n := copy(b, s.in)
	s.in = s.in[n:]
	return n, nil
}

// rest gives the reader's turn back.
func (s *socket) rest() {
	if s.holding {
		s.holding = false
		s.turns.give()
	}
}

func (s *socket) fill() error {
	if s.inBuf == nil {
		s.inBuf = make([]byte, bulkChunk)
	}
	var n int
	var rerr error
	err := s.raw.Read(func(fd uintptr) bool {
		s.turns.take()
		n, rerr = ignoreEINTR(func() (int, error) { return syscall.Read(int(fd), s.inBuf) })
		s.turns.give()
		return !errors.Is(rerr, syscall.EAGAIN)
	})
	switch {
	case err != nil:
		return err
	case rerr != nil:
		return &net.OpError{Op: "read", Net: "tcp", Addr: s.RemoteAddr(), Err: rerr}
	case n == 0:
		return errCut
	}
	s.in = s.inBuf[:n]
	return nil
}

// Write is called by TLS with whole records.
func (s *socket) Write(b []byte) (int, error) {
	if s.raw == nil {
		return s.Conn.Write(b)
	}
	s.wmu.Lock()
	defer s.wmu.Unlock()
	s.out = append(s.out, b...)
	if !s.gather {
		if err := s.flushLocked(); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

func (s *socket) setGather(on bool) {
	s.wmu.Lock()
	s.gather = on
	s.wmu.Unlock()
}

func (s *socket) flush() error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	s.gather = false
	return s.flushLocked()
}

func (s *socket) flushLocked() error {
	rest := s.out
	s.out = s.out[:0]
	for len(rest) > 0 && s.broken == nil {
		var n int
		var werr error
		s.broken = s.raw.Write(func(fd uintptr) bool {
			s.turns.take()
			n, werr = ignoreEINTR(func() (int, error) { return syscall.Write(int(fd), rest) })
			s.turns.give()
			return !errors.Is(werr, syscall.EAGAIN)
		})
		if s.broken == nil && werr != nil {
			s.broken = &net.OpError{Op: "write", Net: "tcp", Addr: s.RemoteAddr(), Err: werr}
		}
		rest = rest[n:]
	}
	return s.broken
}

func ignoreEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if !errors.Is(err, syscall.EINTR) {
			return max(n, 0), err
		}
	}
}

// writePaced sends b over the TLS connection above s in turns.
func (s *socket) writePaced(tls io.Writer, b []byte) (done int, err error) {
	for len(b) > 0 {
		chunk := b[:min(len(b), bulkChunk)]
		s.setGather(true)
		s.turns.take()
		n, err := tls.Write(chunk)
		s.turns.give()
		if ferr := s.flush(); err == nil {
			err = ferr
		}
		if err != nil {
			return done, err
		}
		done += n
		b = b[n:]
	}
	return done, nil
}
