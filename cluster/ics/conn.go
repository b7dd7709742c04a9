package ics

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// The protocols, by their ALPN names.
const (
	protoICS  = "ssi-ics"
	protoRaft = "ssi-raft"
	protoBulk = "ssi-bulk"
	protoJoin = "ssi-join"
)

// conn is one connection the transport knows of, from accept or dial to its
// end. It is the net.Conn that the protocols and the users of streams see.
type conn struct {
	net.Conn // the TLS connection; before the handshake, and to the node itself, the plain one
	raw      net.Conn
	t        *Transport
	inbound  bool

	// Set by identify before the connection is used, then constant; Transport.mu.
	peer    id.Node
	role    string
	proto   string
	chain   []*x509.Certificate
	control bool        // exempt from fencing, or sees to that by itself
	calls   *serverConn // of a connection that this node serves calls on

	incarnation atomic.Uint64 // of the peer, from its hello; 0: not known yet
	cause       atomic.Pointer[error]
	release     func()                  // gives back what the connection counts against; Transport.mu
	end         context.CancelCauseFunc // of the handler's context; Transport.mu

	twin *conn      // the other end, of a connection of the node with itself
	sock *socket    // below TLS; nil to the node itself
	rmu  sync.Mutex // one Read at a time
	wmu  sync.Mutex // one Write at a time
	once sync.Once
}

// track registers a new connection; nil if the transport is closed, then raw
// is closed.
func (t *Transport) track(raw net.Conn, inbound bool) *conn {
	c := &conn{Conn: raw, raw: raw, t: t, inbound: inbound}
	t.mu.Lock()
	closed := t.closed
	if !closed {
		t.conns[c] = struct{}{}
	}
	t.mu.Unlock()
	if closed {
		_ = raw.Close()
		return nil
	}
	return c
}

// identify notes who is on the other side.
func (c *conn) identify(tc *tls.Conn, peer id.Node, role, proto string) {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	if tc != nil {
		c.Conn = tc
		c.chain = tc.ConnectionState().PeerCertificates
	}
	c.peer, c.role, c.proto = peer, role, proto
}

// setCause gives the connection's end a reason, if it has none; true if it was
// this one.
func (c *conn) setCause(cause error) bool {
	return cause != nil && c.cause.CompareAndSwap(nil, &cause)
}

// abort ends the connection at once: nothing is flushed, no alert is sent, a
// blocked read or write returns cause.
func (c *conn) abort(cause error) {
	c.setCause(cause)
	// Without TLS the other end would take this for the orderly end.
	other := c.twin != nil && c.twin.setCause(c.explain(errCut))
	_ = c.raw.Close() // the descriptor is gone either way
	c.forget()
	if other {
		c.twin.abort(nil)
	}
}

// Close ends the connection in the orderly way of TLS. That may write, for at
// most the five seconds crypto/tls allows itself.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.forget()
	return err
}

func (c *conn) forget() {
	c.once.Do(func() {
		c.t.mu.Lock()
		delete(c.t.conns, c)
		release, end := c.release, c.end
		c.t.mu.Unlock()
		c.letGo(release, end)
	})
}

// own makes a stream's connection give back its place and end its handler's
// context when it ends; both may be nil. If it has ended, that happens now.
func (c *conn) own(control bool, release func(), end context.CancelCauseFunc) {
	c.t.mu.Lock()
	_, open := c.t.conns[c]
	c.control = control
	if open {
		c.release, c.end = release, end
	}
	c.t.mu.Unlock()
	if !open {
		c.letGo(release, end)
	}
}

func (c *conn) letGo(release func(), end context.CancelCauseFunc) {
	if release != nil {
		release()
	}
	if end == nil {
		return
	}
	if cause := c.cause.Load(); cause != nil {
		end(*cause)
	} else {
		end(nil)
	}
}

// CloseWrite sends the end of the stream; the other direction goes on.
func (c *conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return c.explain(w.CloseWrite())
	}
	return errors.ErrUnsupported
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.read(b)
	if err != nil {
		err = c.explain(err)
	}
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.write(b)
	if err != nil {
		err = c.explain(err)
	}
	return n, err
}

func (c *conn) read(b []byte) (int, error) {
	if c.sock == nil || c.sock.raw == nil {
		return c.Conn.Read(b)
	}
	c.rmu.Lock()
	defer c.rmu.Unlock()
	defer c.sock.rest()
	return c.Conn.Read(b)
}

func (c *conn) write(b []byte) (int, error) {
	if c.sock == nil || c.sock.raw == nil {
		return c.Conn.Write(b)
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return c.sock.writePaced(c.Conn, b)
}

// explain turns the error of a broken connection into one that says why.
func (c *conn) explain(err error) error {
	if cause := c.cause.Load(); cause != nil && err != nil {
		return *cause
	}
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
		return err
	}
	return errno.New(errno.Unavailable, "", c.peer, "connection lost: %w", err)
}
