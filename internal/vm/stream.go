package vm

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// stream carries frames over a stream socket as QEMU's `-netdev stream` does:
// each behind its length, 4 bytes, big-endian (QEMU net/stream.c).
type stream struct {
	conn net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
}

func newStream(conn net.Conn) *stream {
	return &stream{conn: conn, r: bufio.NewReaderSize(conn, 256<<10), w: bufio.NewWriterSize(conn, 64<<10)}
}

func (s *stream) receive() ([]byte, error) { return readFrame(s.r) }

func (s *stream) send(frame []byte) error {
	var head [4]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(frame)))
	if _, err := s.w.Write(head[:]); err != nil {
		return err
	}
	_, err := s.w.Write(frame)
	return err
}

func (s *stream) flush() error { return s.w.Flush() }

func (s *stream) Close() error { return s.conn.Close() }

// readFrame reads one frame. Only a frame of a possible length is read: after
// another the stream cannot be followed any more.
func readFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > frameMax {
		return nil, fmt.Errorf("a frame of %d bytes is longer than %d", n, frameMax)
	}
	frame := make([]byte, n)
	if _, err := io.ReadFull(r, frame); err != nil {
		return nil, err
	}
	return frame, nil
}

// socketPair makes two connected stream sockets: ours, and a file to give away.
func socketPair(what string) (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair for %s: %w", what, os.NewSyscallError("socketpair", err))
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), what), os.NewFile(uintptr(fds[1]), what)
	conn, err := net.FileConn(ours) // a duplicate
	if err := errors.Join(err, ours.Close()); err != nil {
		_ = theirs.Close()
		return nil, nil, fmt.Errorf("socket pair for %s: %w", what, err)
	}
	return conn, theirs, nil
}

// gone reports whether an error says that the process at the other end of a
// socket ended.
func gone(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}
