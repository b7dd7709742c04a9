package rexec

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/proc"
)

// relay carries the frames of a local caller to and from another node. It
// passes whole frames only, so that it can always add a last one of its own.
type relay struct {
	node   id.Node
	name   string // of the command
	remote net.Conn
	waker  *waker // of the caller
	s      *Server
	place  proc.Place // of the caller, which the command gets if it can; or none

	once    sync.Once
	failure *Failure
	failed  chan struct{}
	over    atomic.Bool // the result of the command was passed on
}

func (s *Server) relay(ctx context.Context, call *api.Call, node id.Node, req *request) error {
	r := &relay{s: s, node: node, name: req.name(), place: req.spec.Place, failed: make(chan struct{})}
	if f := s.enter(ctx, r, node, &s.relays); f != nil {
		return f.Err
	}
	defer s.leave(r, &s.relays)
	b, err := req.append(nil)
	if err != nil {
		return errno.New(errno.Full, "", node, "%s: %w", r.name, err)
	}
	var header []byte
	if len(b)-4 <= maxHeader {
		header, b = b[4:], nil
	}
	octx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	if r.remote, err = s.c.Peers.OpenBulk(octx, node, Bulk, header); err != nil {
		return err
	}
	defer func() { _ = r.remote.Close() }()
	if len(b) > 0 {
		_ = r.remote.SetWriteDeadline(time.Now().Add(openTime))
		if _, err := r.remote.Write(b); err != nil {
			return err
		}
		_ = r.remote.SetWriteDeadline(time.Time{})
	}
	r.waker = newWaker(call)
	defer r.waker.close()
	local, err := call.Upgrade(api.ExecReply{})
	if err != nil {
		return err
	}
	r.run(local)
	return nil
}

// fail ends the relay and tells the caller why.
func (r *relay) fail(f *Failure) {
	r.once.Do(func() {
		r.failure = f
		close(r.failed)
	})
}

// run moves frames until one side ends.
func (r *relay) run(local net.Conn) {
	var g sync.WaitGroup
	done := make(chan struct{})
	g.Go(func() { // to the command; its end is the caller's end
		defer func() { _ = r.remote.Close() }()
		_ = copyFrames(r.remote, local, r.waker.came)
		if r.place.PID != 0 && !r.over.Load() && r.waker.ends(failTime) {
			_ = r.remote.SetWriteDeadline(time.Now().Add(failTime))
			_, _ = r.remote.Write(frame(kindKilled))
		}
	})
	g.Go(func() {
		select {
		case <-r.failed:
			_ = r.remote.Close()
			_ = local.SetWriteDeadline(time.Now().Add(failTime))
		case <-done:
		}
	})
	r.back(local, &g, done)
	close(done)
	r.s.forget(r.place.PID)
	_ = local.SetReadDeadline(time.Now().Add(closeTime)) // the caller closes when it has read the last frame
	g.Wait()
}

// back moves frames to the caller and tells it when the other node is lost.
func (r *relay) back(local net.Conn, g *sync.WaitGroup, done <-chan struct{}) {
	in := frameReader{r: r.remote}
	for {
		k, _, err := in.next()
		if err != nil {
			if !r.over.Load() {
				_ = local.SetWriteDeadline(time.Now().Add(closeTime))
				_, _ = local.Write(r.why(err).frame())
				r.waker.passed(kindError)
			}
			return
		}
		if k == kindPlaced && r.place.PID != 0 {
			r.s.remember(r.place.PID, r.node)
			for _, pid := range r.place.Kin() {
				g.Go(func() { r.follow(pid, done) })
			}
		}
		if _, err := local.Write(in.whole()); err != nil {
			_ = r.remote.Close() // the caller is gone
			_ = local.SetReadDeadline(time.Unix(1, 0))
			return
		}
		r.waker.passed(k)
		if k == kindExit || k == kindError {
			r.over.Store(true)
		}
	}
}

// why explains the end of the connection to the other node.
func (r *relay) why(err error) *Failure {
	select {
	case <-r.failed:
		f := *r.failure
		e := *f.Err
		e.Text += " (while " + r.name + " ran on node " + r.node.String() + ")"
		f.Err = &e
		return &f
	default:
	}
	var e *errno.Error
	if errors.As(err, &e) {
		return lost(e.Kind, r.node, "lost while %s ran there: %s", r.name, e.Text)
	}
	return lost(errno.Unavailable, r.node, "the connection was lost while %s ran there", r.name)
}

// follow tells the other node when the process pid has ended, which has a stand-in
// there.
func (r *relay) follow(pid int32, done <-chan struct{}) {
	if awaitEnd(pid, done) {
		_, _ = r.remote.Write(frame(kindGone, binary.BigEndian.AppendUint32(nil, uint32(pid))...))
	}
}

// copyFrames moves whole frames from one connection to another, and tells their
// kinds.
func copyFrames(to, from net.Conn, came func(kind)) error {
	in := frameReader{r: from}
	for {
		k, _, err := in.next()
		if err != nil {
			return err
		}
		came(k)
		if _, err := to.Write(in.whole()); err != nil {
			return err
		}
	}
}
