package spawn

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/proc"
)

// maxWait bounds one request when the caller sets no deadline. Beyond it the
// role hangs, likely in the execution of a file on a dead file system.
const maxWait = 10 * time.Second

// Client asks the spawn role to create processes. Its methods are safe for
// concurrent use; requests are served one after the other.
type Client struct {
	path string

	mu     sync.Mutex
	conn   *net.UnixConn // nil: not connected
	closed bool
}

// NewClient makes a client for the socket at path; it connects when needed.
func NewClient(path string) *Client { return &Client{path: path} }

// Spawn creates a process. files are its descriptors 0, 1 and 2 and, for a
// session, the leader's control socket. pidfd is the caller's to close. A
// *proc.Failure says why the process could not be created; any other error is
// one of the spawn role, and there is no process then.
func (c *Client) Spawn(ctx context.Context, s *proc.Spec, files []*os.File) (pid int32, pidfd *os.File, err error) {
	req, err := s.Append(make([]byte, lenSize, 4096))
	if err != nil {
		return 0, nil, err
	}
	binary.BigEndian.PutUint32(req, uint32(len(req)-lenSize))
	deadline := time.Now().Add(maxWait)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.connect(deadline); err != nil {
		return 0, nil, err
	}
	stop := context.AfterFunc(ctx, func(conn *net.UnixConn) func() {
		return func() { _ = conn.SetDeadline(time.Unix(1, 0)) }
	}(c.conn))
	defer stop()
	pid, pidfd, err = c.exchange(req, files)
	var f *proc.Failure
	if err != nil && !errors.As(err, &f) {
		// What was asked may still be done: its answer finds nobody, so the role
		// ends the process again.
		_ = c.conn.Close()
		c.conn = nil
	}
	return pid, pidfd, err
}

func (c *Client) connect(deadline time.Time) error {
	if c.closed {
		return net.ErrClosed
	}
	if c.conn == nil {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: c.path, Net: "unix"})
		if err != nil {
			return fmt.Errorf("spawn role: %w", err)
		}
		c.conn = conn
	}
	return c.conn.SetDeadline(deadline)
}

func (c *Client) exchange(req []byte, files []*os.File) (int32, *os.File, error) {
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd()) // theirs, not ours: blocking is right
	}
	n, _, err := c.conn.WriteMsgUnix(req, unix.UnixRights(fds...), nil)
	if err == nil && n < len(req) {
		_, err = c.conn.Write(req[n:])
	}
	if err != nil {
		return 0, nil, fmt.Errorf("spawn role: %w", err)
	}
	var head [lenSize]byte
	var oob [64]byte
	n, oobn, _, _, err := c.conn.ReadMsgUnix(head[:], oob[:])
	if err == nil && n == 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return 0, nil, fmt.Errorf("spawn role: %w", err)
	}
	got, err := rightsOf(oob[:oobn])
	if err == nil {
		_, err = io.ReadFull(c.conn, head[n:])
	}
	var body []byte
	if size := binary.BigEndian.Uint32(head[:]); err == nil && size <= maxReply {
		body = make([]byte, size)
		_, err = io.ReadFull(c.conn, body)
	}
	if err != nil {
		closeFDs(got)
		return 0, nil, fmt.Errorf("spawn role: %w", err)
	}
	pid, f, err := decodeReply(body)
	switch {
	case err == nil && f == nil && len(got) == 1:
		return pid, os.NewFile(uintptr(got[0]), "pidfd"), nil
	case err == nil && f != nil:
		err = f
	case err == nil:
		err = errReply
	}
	closeFDs(got)
	return 0, nil, err
}

// Close ends the connection.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.conn == nil {
		return nil
	}
	err := c.conn.Close()
	c.conn = nil
	return err
}
