package ics

import (
	"context"
	"net"
	"sync"
)

// inbox is the listener of the gRPC server: its connections come from the
// accept loop, after their handshake.
type inbox struct {
	conns chan *conn
	done  chan struct{}
	close func()
}

func newInbox() *inbox {
	b := &inbox{conns: make(chan *conn), done: make(chan struct{})}
	b.close = sync.OnceFunc(func() { close(b.done) })
	return b
}

// put hands a connection to the gRPC server; false if that is not to be.
func (b *inbox) put(ctx context.Context, c *conn) bool {
	select {
	case b.conns <- c:
		return true
	case <-ctx.Done():
	case <-b.done:
	}
	return false
}

// Accept, Close and Addr make it a net.Listener.
func (b *inbox) Accept() (net.Conn, error) {
	select {
	case c := <-b.conns:
		return c, nil
	case <-b.done:
		return nil, net.ErrClosed
	}
}

func (b *inbox) Close() error   { b.close(); return nil }
func (b *inbox) Addr() net.Addr { return inboxAddr{} }

type inboxAddr struct{}

func (inboxAddr) Network() string { return "ics" }
func (inboxAddr) String() string  { return "ics" }
