package ntp

import (
	"net/netip"
	"time"
)

const (
	maxClients  = 1024                   // addresses that are counted
	clientBurst = 16                     // answers at once
	clientEvery = 500 * time.Millisecond // and one more after each
)

// limiter is a bucket of answers for each client.
type limiter struct {
	clients map[netip.Addr]bucket
}

type bucket struct {
	left int
	at   time.Duration
}

func newLimiter() *limiter { return &limiter{clients: make(map[netip.Addr]bucket)} }

// take reports whether the client may have one more answer.
func (l *limiter) take(addr netip.Addr, now time.Duration) bool {
	b, known := l.clients[addr]
	switch {
	case !known && len(l.clients) >= maxClients:
		l.forget(now)
		if len(l.clients) >= maxClients {
			return false
		}
		fallthrough
	case !known:
		b = bucket{left: clientBurst, at: now}
	}
	b = b.filled(now)
	if b.left == 0 {
		l.clients[addr] = b
		return false
	}
	b.left--
	l.clients[addr] = b
	return true
}

func (b bucket) filled(now time.Duration) bucket {
	n := int64((now - b.at) / clientEvery)
	b.at += time.Duration(n) * clientEvery
	b.left = int(min(int64(b.left)+n, clientBurst))
	return b
}

// forget drops the clients that have been silent long enough to have a full
// bucket again.
func (l *limiter) forget(now time.Duration) {
	for addr, b := range l.clients {
		if b.filled(now).left == clientBurst {
			delete(l.clients, addr)
		}
	}
}
