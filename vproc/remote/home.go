package remote

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"ssi/cluster/ics"
	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/vproc/call"
)

// Handlers is where the service is registered: ics.Transport.
type Handlers interface {
	Handle(method string, h ics.Handler)
}

// Register lets other nodes have their calls executed by m.
func Register(h Handlers, m *Remote) {
	for method, serve := range map[string]func(context.Context, id.Node, []byte) ([]byte, error){
		methodCall: m.ServeCall, methodWait: m.ServeWait,
	} {
		h.Handle(method, ics.Unary(func(ctx context.Context, req *wrapperspb.BytesValue) (*wrapperspb.BytesValue, error) {
			b, err := serve(ctx, ics.Caller(ctx).Node, req.GetValue())
			if err != nil {
				return nil, err
			}
			return &wrapperspb.BytesValue{Value: b}, nil
		}))
	}
}

// ServeCall executes a call that node from sent. Its errors are those of the
// message and of this node: what the kernel says is in the reply.
func (m *Remote) ServeCall(ctx context.Context, from id.Node, b []byte) ([]byte, error) {
	a, err := decodeAsk(b)
	if err == nil {
		err = m.admit(from, a.r)
	}
	if err != nil {
		return nil, errno.New(errno.Invalid, "call", m.self, "from node %d: %w", from, err)
	}
	ctx, leave, ok := m.enter(ctx, callTime)
	if !ok {
		return nil, m.errClosed("call")
	}
	defer leave()
	if n, ok := m.elsewhere(a.r); ok {
		return encodeMoved(n), nil
	}
	if !m.mine(a.r, a.file) {
		return new(call.Reply{Errno: unix.ESRCH}).Append(nil), nil
	}
	var reply call.Reply
	if a.r.Nr == call.PidfdOpen {
		reply = m.openHere(a.r)
	} else {
		reply = m.outcome(ctx, a.r, a.file)
	}
	return reply.Append(nil), nil
}

// errClosed tells another node to ask the next daemon.
func (m *Remote) errClosed(op string) error {
	return errno.New(errno.Unavailable, op, m.self, "the daemon is stopping")
}

// admit refuses what no gate of node from sends.
func (m *Remote) admit(from id.Node, r *call.Request) error {
	switch {
	case from == 0 || r.Caller.Node != from || r.Origin.Node != from:
		return fmt.Errorf("a call of node %d: %w", r.Caller.Node, unix.EPERM)
	case r.Caller.PID <= 0 || r.Caller.TID <= 0:
		return fmt.Errorf("a caller without a number: %w", unix.EINVAL)
	case manner(r) == refused:
		return fmt.Errorf("%s does not go to other nodes: %w", r.Nr, unix.ENOSYS)
	}
	return nil
}

// mine tells whether processes of this node can be meant.
func (m *Remote) mine(r *call.Request, file *target) bool {
	switch t := r.Target(); t.Kind {
	case call.OfProcess:
		return m.executes(id.PID(t.ID))
	case call.OfGroup:
		return t.ID < 1<<31 && id.PID(t.ID).Home() != 0
	case call.OfUser, call.Everyone:
		return true
	case call.ByFile:
		return file != nil && m.executes(id.PID(file.pid))
	}
	return false
}

// outcome is execute with what went wrong here as an error number.
func (m *Remote) outcome(ctx context.Context, r *call.Request, file *target) call.Reply {
	reply, err := m.execute(ctx, r, file)
	if err == nil {
		return reply
	}
	var e unix.Errno
	switch {
	case errors.Is(err, errUnknown):
		m.log.Warn("a call is not repeated: it may have been done", "op", r.Nr.String(), "peer", r.Origin.Node, "seq", r.Origin.Seq)
		e = unix.EIO
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		e = unix.ETIMEDOUT
	case errors.As(err, &e):
	default:
		e = unix.EIO
	}
	if e != unix.EAGAIN && e != unix.ETIMEDOUT {
		m.log.Error("a call cannot be executed", "op", r.Nr.String(), "peer", r.Origin.Node, "err", err)
	}
	return call.Reply{Errno: e}
}

// openHere opens a pidfd in order to know the process: the reply holds its target.
func (m *Remote) openHere(r *call.Request) call.Reply {
	fd, err := unix.PidfdOpen(int(r.Int(0)), int(uint32(r.Args[1])))
	if err != nil {
		return call.Reply{Errno: errnoOf(err)}
	}
	defer func() { _ = unix.Close(fd) }()
	number, err := inodeOf(fd)
	if err != nil {
		return call.Reply{Errno: errnoOf(err)}
	}
	t := target{pid: r.Int(0), thread: r.Args[1]&unix.PIDFD_THREAD != 0, boot: m.boot, number: number}
	return call.Reply{Out: t.append(nil)}
}

// openTarget opens a pidfd of t, if that is still there.
func (m *Remote) openTarget(t *target) (int, error) {
	if t.boot != m.boot {
		return -1, unix.ESRCH
	}
	flags := 0
	if t.thread {
		flags = unix.PIDFD_THREAD
	}
	fd, err := unix.PidfdOpen(int(t.pid), flags)
	if err != nil {
		return -1, err
	}
	number, err := inodeOf(fd)
	if err == nil && number != t.number {
		err = unix.ESRCH
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func inodeOf(fd int) (uint64, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return st.Ino, err
}

func errnoOf(err error) unix.Errno {
	var e unix.Errno
	if errors.As(err, &e) && e != 0 {
		return e
	}
	return unix.EIO
}

// bootNumber is one of this boot of the kernel: inodes of pidfds begin anew with it.
func bootNumber() (uint64, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || len(b) < 36 {
		return 0, fmt.Errorf("boot_id: %w", err)
	}
	return binary.LittleEndian.Uint64(b[20:28]), nil
}
