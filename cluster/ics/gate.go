package ics

import (
	"fmt"
	"net/netip"
	"sync"
)

// gate bounds the handshakes in progress. Peers' addresses and strangers have
// separate places.
type gate struct {
	mu        sync.Mutex
	limits    Limits
	strangers int
	perAddr   map[netip.Addr]int
}

func newGate(l Limits) *gate {
	return &gate{limits: l, perAddr: make(map[netip.Addr]int)}
}

// enter takes a place; leave gives it back, once.
func (g *gate) enter(addr netip.Addr, isPeer bool) (leave func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	limit := g.limits.StrangersPerAddr
	if isPeer {
		limit = g.limits.HandshakesPerPeer
	} else if g.strangers >= g.limits.Strangers {
		return nil, fmt.Errorf("too many unfinished handshakes of strangers (%d)", g.strangers)
	}
	if g.perAddr[addr] >= limit {
		return nil, fmt.Errorf("too many unfinished handshakes of this address (%d)", g.perAddr[addr])
	}
	g.perAddr[addr]++
	if !isPeer {
		g.strangers++
	}
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.perAddr[addr]--; g.perAddr[addr] == 0 {
			delete(g.perAddr, addr)
		}
		if !isPeer {
			g.strangers--
		}
	}, nil
}
