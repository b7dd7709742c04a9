package remote

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/vproc/call"
)

// The pause before a call is repeated.
const (
	firstPause = 2 * time.Millisecond
	maxPause   = 200 * time.Millisecond
)

// ask has node n execute a call. If it says that the process lives elsewhere, to is
// where, and nothing was done; otherwise to is 0. While the node is UP and does not answer, because
// its daemon is being started anew, the call is repeated: it is done once.
func (m *Remote) ask(ctx context.Context, n id.Node, a ask) (reply call.Reply, to id.Node) {
	req := &wrapperspb.BytesValue{Value: a.encode()}
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		var answer wrapperspb.BytesValue
		err := m.cfg.Peers.Call(ctx, n, methodCall, req, &answer)
		if err == nil {
			reply, to, err := decodeAnswer(answer.GetValue())
			if err != nil {
				m.log.Error("an answer that is none", "op", a.r.Nr.String(), "peer", n, "err", err)
				return call.Reply{Errno: unix.EIO}, 0
			}
			return reply, to
		}
		if !m.up(n) {
			return call.Reply{Errno: unix.ESRCH}, 0 // with the node its processes have ended
		}
		if !again(err) {
			m.log.Error("a call to another node failed", "op", a.r.Nr.String(), "peer", n, "err", err)
			return call.Reply{Errno: errnoFor(err)}, 0
		}
		select {
		case <-ctx.Done():
			return call.Reply{Errno: unix.ETIMEDOUT}, 0
		case <-time.After(pause):
		}
	}
}

// again tells whether it makes sense to repeat a call that failed with err.
func again(err error) bool {
	switch errno.KindOf(err) {
	case errno.Unavailable, errno.Unknown, errno.Full, errno.Stale, errno.Timeout:
		return true
	case errno.Fenced: // so is a daemon that starts; a node that stays so goes down
		return true
	case errno.Other:
		return errors.Is(err, context.DeadlineExceeded)
	}
	return false
}

// errnoFor is what a program is told of a failure between nodes.
func errnoFor(err error) unix.Errno {
	if errno.KindOf(err) == errno.NotFound { // a node of another version, which does not know the service
		return unix.ENOSYS
	}
	return unix.EIO
}
