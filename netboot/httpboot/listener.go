package httpboot

import (
	"net"
	"net/netip"
	"sync"
)

// listener accepts no more connections than it may, in all and of one address.
type listener struct {
	net.Listener
	all       int
	perClient int
	refused   func(client netip.Addr)

	mu      sync.Mutex
	open    int
	clients map[netip.Addr]int
}

func newListener(l net.Listener, all, perClient int, refused func(netip.Addr)) *listener {
	return &listener{Listener: l, all: all, perClient: perClient, refused: refused, clients: map[netip.Addr]int{}}
}

// Accept closes what is too much at once: a client that waits in the queue of
// the kernel would wait for ever.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tcp, ok := c.(*net.TCPConn)
		client := address(c.RemoteAddr().String()).Addr()
		if ok && l.admit(client) {
			return &conn{TCPConn: tcp, release: sync.OnceFunc(func() { l.release(client) })}, nil
		}
		_ = c.Close()
		l.refused(client)
	}
}

func (l *listener) admit(client netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.all || l.clients[client] >= l.perClient {
		return false
	}
	l.open++
	l.clients[client]++
	return true
}

func (l *listener) release(client netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.clients[client]--; l.clients[client] <= 0 {
		delete(l.clients, client)
	}
}

// conn is counted until it is closed. Embedding the TCPConn keeps its ReadFrom,
// which is sendfile.
type conn struct {
	*net.TCPConn
	release func()
}

func (c *conn) Close() error {
	c.release()
	return c.TCPConn.Close()
}

// address takes apart what net/http and net call an address.
func address(s string) netip.AddrPort {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
