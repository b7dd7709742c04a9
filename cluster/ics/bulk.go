package ics

import (
	"context"
	"errors"

	"ssi/internal/errno"
	"ssi/internal/id"
)

const (
	outgoing = 0
	incoming = 1
)

// OpenBulk opens a stream to the handler of a name on a node (this node too).
// It returns when the handler's node accepted it. ctx bounds the opening only.
func (t *Transport) OpenBulk(ctx context.Context, to id.Node, name string, header []byte) (Stream, error) {
	s, err := t.openBulk(ctx, to, name, header)
	if err != nil {
		var e *errno.Error
		if errors.As(err, &e) && e.Op == "" {
			return nil, &errno.Error{Op: "open " + name, Node: e.Node, Kind: e.Kind, Text: e.Text, Err: err}
		}
		return nil, err
	}
	return s, nil
}

func (t *Transport) openBulk(ctx context.Context, to id.Node, name string, header []byte) (*conn, error) {
	if name == "" || len(name) > MaxBulkName || len(header) > MaxBulkHeader {
		return nil, errno.New(errno.Invalid, "", to, "name of %d bytes, header of %d: too long", len(name), len(header))
	}
	p := t.peerOf(to)
	if p == nil {
		return nil, errno.New(errno.Unavailable, "", to, "no such node, or the daemon is stopping")
	}
	l, err := p.reachable(t.control(name))
	if err != nil {
		return nil, err
	}
	release, ok := p.countStream(outgoing)
	if !ok {
		return nil, errno.New(errno.Full, "", to, "%d streams are open to it, which is the limit", t.limits.StreamsPerPeer)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	h := hello{to: l.Incarnation, name: name, header: header}
	var c *conn
	if to == t.cfg.Self {
		c, err = t.openSelf(h)
	} else {
		c, err = t.dial(ctx, p, protoBulk, h)
	}
	if err != nil {
		release()
		if l.ctx.Err() != nil {
			return nil, context.Cause(l.ctx)
		}
		return nil, err
	}
	c.own(t.control(name), release, nil)
	return c, nil
}

func (p *peer) countStream(dir int) (release func(), ok bool) {
	if int(p.streams[dir].Add(1)) > p.t.limits.StreamsPerPeer {
		p.streams[dir].Add(-1)
		return nil, false
	}
	return func() { p.streams[dir].Add(-1) }, true
}

// serveBulk answers a request for a stream and runs its handler.
func (t *Transport) serveBulk(c *conn, from Remote, h hello) {
	control := t.control(h.name)
	handler, release, refusal := t.admitBulk(from, h, control)
	if refusal != nil {
		t.answer(c, refusal)
		_ = c.Close() // orderly, so that the refusal is read
		return
	}
	if !t.answer(c, nil) {
		release()
		return
	}
	t.runBulk(c, from, h, handler, release, control)
}

func (t *Transport) admitBulk(from Remote, h hello, control bool) (BulkHandler, func(), *errno.Error) {
	t.mu.Lock()
	handler := t.bulk[h.name]
	t.mu.Unlock()
	if handler == nil {
		return nil, nil, errno.New(errno.NotFound, "", t.cfg.Self, "knows no stream %q: another version?", oneLine([]byte(h.name)))
	}
	if err := t.admit(from, h.to, control); err != nil {
		var e *errno.Error
		errors.As(err, &e)
		return nil, nil, e
	}
	p := t.peerOf(from.Node)
	if p == nil {
		return nil, nil, errno.New(errno.Unavailable, "", t.cfg.Self, "the node's daemon is stopping")
	}
	release, ok := p.countStream(incoming)
	if !ok {
		return nil, nil, errno.New(errno.Full, "", t.cfg.Self, "%d streams of node %d are open, which is the limit", t.limits.StreamsPerPeer, from.Node)
	}
	return handler, release, nil
}

// runBulk calls the handler with a context that ends with the connection, and
// so with the peer's life and, unless the stream is exempt, with this node's
// permission to serve. A handler may simply read: that ends too.
func (t *Transport) runBulk(c *conn, from Remote, h hello, handler BulkHandler, release func(), control bool) {
	ctx, cancel := context.WithCancelCause(t.ctx)
	c.own(control, release, cancel)
	if s := t.service.Load(); !control && !s.ok {
		c.abort(errno.New(errno.Fenced, "", t.cfg.Self, "fenced: %s", s.why)) // fenced between admission and here
	}
	handler(ctx, from, h.header, c)
	_ = c.Close() // the handler said all it had to
}

// openSelf is OpenBulk to this node, without the network.
func (t *Transport) openSelf(h hello) (*conn, error) {
	from := Remote{Node: t.cfg.Self, Incarnation: t.cfg.Incarnation, Epoch: t.view.Load().epoch}
	control := t.control(h.name)
	handler, release, refusal := t.admitBulk(from, h, control)
	if refusal != nil {
		return nil, refusal
	}
	near, far, err := t.selfPair(protoBulk)
	if err != nil {
		release()
		return nil, err
	}
	if !t.spawn(func() { t.runBulk(far, from, h, handler, release, control) }) {
		release()
		near.abort(nil)
		far.abort(nil)
		return nil, errClosed(t.cfg.Self)
	}
	return near, nil
}

// selfPair is a tracked connection of this node with itself.
func (t *Transport) selfPair(proto string) (near, far *conn, err error) {
	a, b, err := socketPair()
	if err != nil {
		return nil, nil, errno.New(errno.Other, "", t.cfg.Self, "%w", err)
	}
	near, far = t.track(a, false), t.track(b, true)
	if near == nil || far == nil {
		_, _ = a.Close(), b.Close()
		return nil, nil, errClosed(t.cfg.Self)
	}
	near.twin, far.twin = far, near
	for _, c := range []*conn{near, far} {
		c.identify(nil, t.cfg.Self, "", proto)
		c.incarnation.Store(uint64(t.cfg.Incarnation))
	}
	return near, far, nil
}

// dialSelf connects this node's calls with its own handlers.
func (t *Transport) dialSelf(proto string) (*conn, error) {
	near, far, err := t.selfPair(proto)
	if err != nil {
		return nil, err
	}
	if !t.spawn(func() { t.serveCalls(far) }) {
		near.abort(nil)
		far.abort(nil)
		return nil, errClosed(t.cfg.Self)
	}
	return near, nil
}
