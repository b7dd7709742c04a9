package fuse

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// Conn is the server's end of a mount.
type Conn struct {
	f  *os.File
	fd int

	mu      sync.Mutex
	waiting map[uint64]context.CancelFunc // requests that can be interrupted, by their number
}

// Make makes a new file system that nobody sees and nobody serves yet. conn is the server's end, for New;
// mount is to be put somewhere with move_mount(2), once, and should be only when it is being served: who
// looks at it waits. Permissions are checked by the kernel, against the modes that the server tells.
// source and kind are what /proc/mounts shows; attrs are MOUNT_ATTR_ flags of fsmount(2). The file system
// ends, and the server with it, when its last mount is gone and mount is closed. It needs CAP_SYS_ADMIN.
func Make(source, kind string, attrs int) (conn, mount *os.File, err error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open /dev/fuse: %w", err)
	}
	at, err := superblock(fd, source, kind, attrs)
	if err != nil {
		_ = unix.Close(fd)
		return nil, nil, fmt.Errorf("make a FUSE file system: %w", err)
	}
	return os.NewFile(uintptr(fd), "fuse"), os.NewFile(uintptr(at), "fuse mount"), nil
}

func superblock(fd int, source, kind string, attrs int) (mount int, err error) {
	fs, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(fs) }()
	for _, o := range [...][2]string{
		{"source", source}, {"subtype", kind}, {"fd", strconv.Itoa(fd)}, {"rootmode", strconv.FormatInt(unix.S_IFDIR|0o555, 8)},
		{"user_id", "0"}, {"group_id", "0"},
	} {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return 0, fmt.Errorf("%s: %w", o[0], err)
		}
	}
	for _, o := range [...]string{"allow_other", "default_permissions"} {
		if err := unix.FsconfigSetFlag(fs, o); err != nil {
			return 0, fmt.Errorf("%s: %w", o, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return 0, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
}

// New makes the server of f: of a new mount, or of one that another process served
// until now. It takes f.
func New(f *os.File) (*Conn, error) {
	fd := int(f.Fd()) // blocking: a reader is woken up fastest in read(2) itself
	if err := unix.SetNonblock(fd, false); err != nil {
		return nil, fmt.Errorf("fuse: %w", err)
	}
	return &Conn{f: f, fd: fd, waiting: map[uint64]context.CancelFunc{}}, nil
}

// File is the descriptor, for keeping it.
func (c *Conn) File() *os.File { return c.f }

// Serve reads requests in n goroutines and calls handle for each, until the mount
// is gone; then it closes the descriptor. What another process received and did not answer must be asked
// for by Resend.
func (c *Conn) Serve(n int, handle func(*Request)) error {
	errs := make(chan error, n)
	for range n {
		go func() { errs <- c.read(handle) }()
	}
	var all []error
	for range n {
		all = append(all, <-errs)
	}
	c.mu.Lock()
	for _, cancel := range c.waiting {
		cancel()
	}
	c.mu.Unlock()
	return errors.Join(append(all, c.f.Close())...)
}

func (c *Conn) read(handle func(*Request)) error {
	buf := make([]byte, maxRequest)
	for {
		n, err := unix.Read(c.fd, buf)
		switch err {
		case nil:
		case unix.EINTR, unix.EAGAIN, unix.ENOENT: // ENOENT: it was interrupted before it was read
			continue
		case unix.ENODEV: // unmounted
			return nil
		default:
			return fmt.Errorf("fuse: read: %w", err)
		}
		r, ok := parse(buf[:n])
		if !ok {
			if h, ok := parseHeader(buf[:n]); ok && h.op != forget && h.op != batchForget {
				c.write(h.unique, unix.EIO, nil)
			}
			continue
		}
		r.conn = c
		switch r.Op {
		case forget, batchForget: // no reply; node IDs are not counted
		case interrupt:
			c.interrupted(r.Offset)
		case initialise:
			b, e := initOut(r)
			c.write(r.unique, e, b)
		case destroy, release:
			c.write(r.unique, 0, nil)
		case Open, flush: // not needed: the kernel does not ask again
			c.write(r.unique, unix.ENOSYS, nil)
		default:
			handle(r)
		}
	}
}

// interrupted ends the wait of a request whose caller got a signal. The kernel
// goes on waiting for the answer.
func (c *Conn) interrupted(unique uint64) {
	c.mu.Lock()
	cancel := c.waiting[unique]
	c.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// write sends an answer. The kernel refuses one to a caller that is gone (ENOENT)
// and one that was answered twice: neither matters here.
func (c *Conn) write(unique uint64, e unix.Errno, body []byte) {
	le := binary.NativeEndian
	b := make([]byte, 0, outHeaderLen+len(body))
	b = le.AppendUint32(b, uint32(outHeaderLen+len(body)))
	b = le.AppendUint32(b, uint32(-int32(e)))
	b = le.AppendUint64(b, unique)
	b = append(b, body...)
	_ = c.send(b)
}

func (c *Conn) send(b []byte) error {
	for {
		_, err := unix.Write(c.fd, b)
		if err != unix.EINTR {
			return err
		}
	}
}

// notify sends a message that answers nothing: its code stands where the error of
// an answer does, and the number of the request is 0.
func (c *Conn) notify(code int32, body []byte) error {
	le := binary.NativeEndian
	b := make([]byte, 0, outHeaderLen+len(body))
	b = le.AppendUint32(b, uint32(outHeaderLen+len(body)))
	b = le.AppendUint32(b, uint32(code))
	b = le.AppendUint64(b, 0)
	err := c.send(append(b, body...))
	if errors.Is(err, unix.ENOENT) { // the kernel holds nothing of it
		return nil
	}
	if err != nil {
		return fmt.Errorf("fuse: notify: %w", err)
	}
	return nil
}

// Resend asks the kernel to send again every request that was read and not
// answered: by the process that served before. It needs Linux 6.9.
func (c *Conn) Resend() error { return c.notify(notifyResend, nil) }

// Invalidate makes the kernel ask again for the attributes of a node, and for its
// content if data is set. It waits for pages that are being read, so the
// reads must go on being served meanwhile.
func (c *Conn) Invalidate(node uint64, data bool) error {
	le := binary.NativeEndian
	var off uint64 // and length 0: all of it
	if !data {
		off = ^uint64(0)
	}
	b := le.AppendUint64(make([]byte, 0, 24), node)
	b = le.AppendUint64(b, off)
	return c.notify(notifyInvalInode, le.AppendUint64(b, 0))
}

// InvalidateEntry makes the kernel forget a name in a directory. It waits for the
// lock of the directory.
func (c *Conn) InvalidateEntry(dir uint64, name string) error {
	le := binary.NativeEndian
	b := le.AppendUint64(make([]byte, 0, 17+len(name)), dir)
	b = le.AppendUint32(b, uint32(len(name)))
	b = le.AppendUint32(b, 0)
	return c.notify(notifyInvalEntry, append(append(b, name...), 0))
}
