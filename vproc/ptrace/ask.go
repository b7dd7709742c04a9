package ptrace

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// askTime is how long a node has to answer. Meanwhile an execve(2) of another thread of
// the caller waits too.
const askTime = 10 * time.Second

// ask asks a node whether it can execute a program; the error has the number for the
// caller.
func (s *Server) ask(ctx context.Context, n id.Node, q *question) error {
	b, err := json.Marshal(q)
	if err != nil {
		return fmt.Errorf("question for node %d: %w", n, err)
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var answer wrapperspb.UInt32Value
	if err := s.cfg.Peers.Call(ctx, n, methodCheck, wrapperspb.Bytes(b), &answer); err != nil {
		return fmt.Errorf("ask node %d: %w: %w", n, errnoFor(err), err)
	}
	if e := unix.Errno(answer.GetValue()); e != 0 {
		return e
	}
	return nil
}

// errnoFor is what a program is told of a failure between nodes.
func errnoFor(err error) unix.Errno {
	switch errno.KindOf(err) {
	case errno.Unavailable, errno.Fenced, errno.Stale:
		return unix.EHOSTDOWN
	case errno.Full, errno.NoQuorum:
		return unix.EAGAIN
	case errno.Timeout:
		return unix.ETIMEDOUT
	case errno.NotFound: // a node of another version, which does not know the question
		return unix.ENOSYS
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return unix.ETIMEDOUT
	}
	return unix.EIO
}
