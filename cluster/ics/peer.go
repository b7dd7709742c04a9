package ics

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// peer is the transport's side of one node, kept until Close: its number may
// come back.
type peer struct {
	t       *Transport
	node    id.Node
	link    link // for calls
	out     *outbox
	life    atomic.Pointer[life]
	first   atomic.Pointer[string] // the address to try first, of a peer with several
	streams [2]atomic.Int32        // bulk streams: out, in
	dials   chan struct{}          // one place per handshake in progress
	inConn  atomic.Pointer[conn]   // the ssi-raft connection it sends on
	reading chan struct{}          // one place: who may read its messages
}

// life is what is known of a peer in one view; ctx is shared by the views
// between which the peer did not leave.
type life struct {
	Peer
	known bool
	epoch id.Epoch // of the view
	ctx   context.Context
	end   context.CancelCauseFunc
}

// peerDials bounds the handshakes this node has in progress with one peer, well
// below what the peer takes from one address.
const peerDials = 32

func newPeer(t *Transport, n id.Node) *peer {
	p := &peer{t: t, node: n, dials: make(chan struct{}, peerDials), reading: make(chan struct{}, 1)}
	l := &life{epoch: t.view.Load().epoch}
	l.ctx, l.end = context.WithCancelCause(t.ctx)
	p.life.Store(l)
	p.link = link{p: p, pause: backoffMin}
	p.out = newOutbox(p)
	return p
}

// nextLife is the life after a new view; it keeps old's context unless the peer
// left in between.
func (p *peer) nextLife(old *life, info Peer, known bool, epoch id.Epoch) *life {
	next := &life{Peer: info, known: known, epoch: epoch, ctx: old.ctx, end: old.end}
	if left(old, next) {
		next.ctx, next.end = context.WithCancelCause(p.t.ctx)
	}
	return next
}

// left reports whether the life before is over in the view after.
func left(before, after *life) bool {
	if before.known && !after.known || before.Member && !after.Member {
		return true
	}
	return before.Incarnation != 0 && before.Incarnation != after.Incarnation
}

// endOf is why a connection must end between two views, nil if it may stay.
func endOf(c *conn, before, after *life) error {
	if left(before, after) {
		// A connection of the new life may be here before the view that says so.
		if after.known && c.incarnation.Load() != 0 && c.incarnation.Load() == uint64(after.Incarnation) &&
			before.Incarnation != after.Incarnation {
			return nil
		}
		if after.known && c.proto == protoRaft && before.Incarnation == after.Incarnation {
			return nil // the same life, outside the membership: raft goes on
		}
		return leftError(c.peer, after)
	}
	if !c.inbound && c.proto != protoBulk && before.Addr != "" && before.Addr != after.Addr {
		return errno.New(errno.Unavailable, "", c.peer, "its address changed from %s to %s", before.Addr, after.Addr)
	}
	return nil
}

func leftError(n id.Node, l *life) error {
	return errno.New(errno.Unavailable, "", n, "left the cluster%s", causeText(l))
}

func causeText(l *life) string {
	switch {
	case l == nil:
		return ""
	case l.Member:
		return ": it restarted"
	case l.Cause != "":
		return ": " + l.Cause
	}
	return ""
}

// kick makes attempts to connect start now instead of after their pause.
func (p *peer) kick() {
	p.link.kick()
	p.out.kick()
}

// longestPause is the longest pause before the next attempt to connect after one
// that failed with err.
func (p *peer) longestPause(err error) time.Duration {
	lim := &p.t.limits
	if p.life.Load().Gone || errno.Is(err, errno.Permission) {
		return max(lim.BackoffGone, lim.BackoffMax)
	}
	return lim.BackoffMax
}

// peerOf is the peer of a number, made when needed; nil if the transport is
// closed or the number invalid.
func (t *Transport) peerOf(n id.Node) *peer {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[n]
	if p == nil && n.Valid() && !t.closed {
		p = newPeer(t, n)
		t.peers[n] = p
	}
	return p
}

func (t *Transport) lifeOf(n id.Node) *life {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.peers[n]; p != nil {
		return p.life.Load()
	}
	return nil
}

// reachable is the life of the peer if it may be talked to.
func (p *peer) reachable(control bool) (*life, error) {
	l := p.life.Load()
	if p.node == p.t.cfg.Self || l.Member || control && l.known {
		return l, nil
	}
	if !l.known {
		return nil, errno.New(errno.Unavailable, "", p.node, "no such node in the cluster")
	}
	text := "is not a member of the cluster"
	if l.Cause != "" {
		text = fmt.Sprintf("%s: %s", text, l.Cause)
	}
	return nil, errno.New(errno.Unavailable, "", p.node, "%s", text)
}
