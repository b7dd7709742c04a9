package ics

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// acceptPause is how long the accept loop rests after an error such as "too
// many open files", which ends by itself.
const acceptPause = 50 * time.Millisecond

func (t *Transport) accept(l net.Listener) error {
	defer l.Close()
	for {
		raw, err := l.Accept()
		if err != nil {
			var temporary interface{ Temporary() bool }
			if t.ctx.Err() == nil && errors.As(err, &temporary) && temporary.Temporary() {
				t.cfg.Log.Error("cannot accept connections", "op", "accept", "err", err)
				select {
				case <-time.After(acceptPause):
				case <-t.ctx.Done():
				}
				continue
			}
			if t.ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("ics: accept: %w", err)
		}
		addr := sourceOf(raw)
		leave, why := t.gate.enter(addr, t.isPeerAddr(addr))
		if why != nil {
			t.refusals.log(addr, why)
			_ = raw.Close() // a stranger gets nothing, not even an alert
			continue
		}
		c := t.track(raw, true)
		if c == nil || !t.spawn(func() { t.receive(c, addr, leave) }) {
			leave()
			_ = raw.Close() // the transport is closing
		}
	}
}

// receive takes an accepted connection through handshake and hello and hands
// it to its protocol. leave gives its place at the gate back.
func (t *Transport) receive(c *conn, addr netip.Addr, leave func()) {
	who, tc, h, err := t.handshake(c)
	leave()
	if err != nil {
		if t.ctx.Err() == nil {
			t.refusals.log(addr, err)
		}
		c.abort(nil)
		return
	}
	if who.proto == protoJoin {
		t.serveJoin(c, tc, who.token)
		return
	}
	if p := t.peerOf(who.node); p != nil {
		p.kick() // it lives: no pause before the next attempt to reach it
	}
	from := Remote{Node: who.node, Role: who.role, Incarnation: h.incarnation, Epoch: h.epoch}
	switch who.proto {
	case protoICS:
		if t.answer(c, nil) {
			t.serveCalls(c)
		}
	case protoRaft:
		if t.answer(c, nil) {
			t.readMessages(c, from.Node)
		}
	case protoBulk:
		c.sock.pace(t.turns)
		t.serveBulk(c, from, h)
	}
}

// handshake runs TLS and reads the hello, both within Limits.Handshake.
func (t *Transport) handshake(c *conn) (accepted, *tls.Conn, hello, error) {
	var who accepted
	ctx, cancel := context.WithTimeout(t.ctx, t.limits.Handshake)
	defer cancel()
	if err := c.raw.SetDeadline(time.Now().Add(t.limits.Handshake)); err != nil {
		return who, nil, hello{}, err
	}
	c.sock = &socket{Conn: c.raw}
	tc := tls.Server(c.sock, t.serverTLS(ctx, &who))
	if err := tc.HandshakeContext(ctx); err != nil {
		return who, nil, hello{}, explainHandshake(err, t.limits.Handshake)
	}
	tune(c.raw, who.proto, t.limits)
	c.identify(tc, who.node, who.role, who.proto)
	if who.proto == protoJoin {
		return who, tc, hello{}, c.raw.SetDeadline(time.Time{})
	}
	body, err := readFrame(tc, maxHello)
	if err != nil {
		return who, nil, hello{}, fmt.Errorf("node %d: no hello: %w", who.node, err)
	}
	h, err := decodeHello(body)
	if err != nil {
		return who, nil, hello{}, fmt.Errorf("node %d: %w", who.node, err)
	}
	c.incarnation.Store(uint64(h.incarnation))
	return who, tc, h, c.raw.SetDeadline(time.Time{})
}

// answer sends the reply to a hello; false if the connection is of no use.
func (t *Transport) answer(c *conn, refusal *errno.Error) bool {
	_ = c.SetWriteDeadline(time.Now().Add(t.limits.Handshake)) // a dead descriptor fails in Write
	_, err := c.Write(reply{incarnation: t.cfg.Incarnation, refusal: refusal}.encode())
	if err != nil {
		c.abort(nil)
		return false
	}
	_ = c.SetWriteDeadline(time.Time{})
	return true
}

func (t *Transport) serveJoin(c *conn, tc *tls.Conn, token [32]byte) {
	select {
	case t.joins <- struct{}{}:
		defer func() { <-t.joins }()
		t.join.ServeJoin(t.ctx, tc, token)
	default:
		t.cfg.Log.Warn("join refused: too many at once; the machine may try again", "op", "join", "limit", t.limits.Joins)
	}
	_ = c.Close() // the conversation is over
}

// explainHandshake puts the failures a port draws from strangers into words.
func explainHandshake(err error, limit time.Duration) error {
	var record tls.RecordHeaderError
	var alert *net.OpError
	switch {
	case errors.As(err, &record):
		return errors.New("does not speak TLS: a port scan, or a program that took the port for another's")
	case errors.Is(err, errCut):
		return errors.New("connected and left without a handshake: a port scan or a health check")
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("did not finish the handshake within %v", limit)
	case errors.As(err, &alert) && alert.Op == "remote error":
		return fmt.Errorf("the other side refuses this node: %w", err)
	}
	return err
}

func sourceOf(c net.Conn) netip.Addr {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// isPeerAddr reports whether a node of the view has this address.
func (t *Transport) isPeerAddr(addr netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.peers {
		l := p.life.Load()
		if isHost(l.Addr, addr) || slices.ContainsFunc(l.Others, func(o string) bool { return isHost(o, addr) }) {
			return true
		}
	}
	return false
}

// isHost reports whether IP:port has this IP.
func isHost(at string, addr netip.Addr) bool {
	ap, err := netip.ParseAddrPort(at)
	return err == nil && ap.Addr().Unmap() == addr
}

// dial connects to a peer for one protocol and says hello. h carries what the
// stream is for; who calls is filled in here.
func (t *Transport) dial(ctx context.Context, p *peer, proto string, h hello) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, t.limits.DialTimeout)
	defer cancel()
	select { // the peer takes only so many handshakes at once
	case p.dials <- struct{}{}:
		defer func() { <-p.dials }()
	case <-ctx.Done():
		return nil, dialError(p.node, "", ctx.Err())
	}
	if p.node == t.cfg.Self {
		return t.dialSelf(proto)
	}
	l := p.life.Load()
	if l.Addr == "" {
		return nil, errno.New(errno.Unavailable, "", p.node, "its address is not known")
	}
	raw, addr, err := t.connect(ctx, p, l)
	if err != nil {
		return nil, dialError(p.node, addr, err)
	}
	c := t.track(raw, false)
	if c == nil {
		return nil, errClosed(t.cfg.Self)
	}
	tune(raw, proto, t.limits)
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) }) // wakes what blocks
	c.sock = &socket{Conn: raw}
	tc := tls.Client(c.sock, t.clientTLS(proto, p.node))
	if err := tc.HandshakeContext(ctx); err != nil {
		stop()
		c.abort(nil)
		p.tried(l, addr, false)
		return nil, dialError(p.node, addr, err)
	}
	c.identify(tc, p.node, "", proto)
	h.incarnation, h.epoch = t.cfg.Incarnation, t.view.Load().epoch
	refusal, err := c.greet(h)
	if !stop() && err == nil {
		err = context.Cause(ctx) // the deadline struck; it may still be set
	}
	if err != nil {
		c.abort(nil)
		p.tried(l, addr, false)
		return nil, dialError(p.node, addr, err)
	}
	p.tried(l, addr, true)
	if refusal != nil {
		c.abort(nil)
		return nil, refusal
	}
	if proto != protoRaft && p.life.Load().ctx != l.ctx {
		c.abort(nil) // the view changed meanwhile; this connection is of the former
		return nil, leftError(p.node, p.life.Load())
	}
	if proto == protoBulk {
		c.sock.pace(t.turns)
	}
	return c, nil
}

// greet says hello and reads the answer. Only then does a client know that the
// server took its certificate: a TLS 1.3 handshake ends before that.
func (c *conn) greet(h hello) (refusal *errno.Error, err error) {
	_, werr := c.Conn.Write(h.encode())
	body, err := readFrame(c.Conn, maxReply) // also after a failed write: the alert says why
	if err != nil {
		return nil, errors.Join(err, werr)
	}
	r, err := decodeReply(body, c.peer)
	if err != nil {
		return nil, err
	}
	c.incarnation.Store(uint64(r.incarnation))
	return r.refusal, nil
}

func dialError(n id.Node, addr string, err error) error {
	var alert *net.OpError // crypto/tls reports the other side's alerts so
	var own *errno.Error
	switch {
	case errors.As(err, &own):
		return err
	case errors.As(err, &alert) && alert.Op == "remote error":
		return errno.New(errno.Permission, "", n, "%s refuses this node's certificate (the reason is in the log there): %w", addr, err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return errno.New(errno.Unavailable, "", n, "no answer from %s in time: %w", addr, err)
	}
	return errno.New(errno.Unavailable, "", n, "cannot reach %s: %w", addr, err)
}
