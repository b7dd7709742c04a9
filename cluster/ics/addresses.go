package ics

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"
)

// attemptDelay is how long an address of a peer is let try alone before the next
// one is tried beside it ("Connection Attempt Delay", RFC 8305 section 5).
const attemptDelay = 250 * time.Millisecond

// addresses are those of a peer in the order in which to try them: as the peer
// prefers, but begun with the one that is known to work.
func (p *peer) addresses(l *life) []string {
	all := append([]string{l.Addr}, l.Others...)
	if first := p.first.Load(); first != nil {
		if i := slices.Index(all, *first); i > 0 {
			all = slices.Insert(slices.Delete(all, i, i+1), 0, *first)
		}
	}
	return all
}

// tried notes whether a peer was found at an address: then that is tried first from
// now on, else the one that follows it, because somebody else may have it.
func (p *peer) tried(l *life, addr string, found bool) {
	if len(l.Others) == 0 {
		return
	}
	if !found {
		all := append([]string{l.Addr}, l.Others...)
		addr = all[(slices.Index(all, addr)+1)%len(all)]
	}
	p.first.Store(&addr)
}

// connect connects to a peer at the first of its addresses that answers. The
// error is that of each address.
func (t *Transport) connect(ctx context.Context, p *peer, l *life) (net.Conn, string, error) {
	all := p.addresses(l)
	if len(all) == 1 {
		c, err := t.cfg.Dial(ctx, all[0])
		return c, all[0], err
	}
	type attempt struct {
		c    net.Conn
		addr string
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan attempt, len(all))
	started, ended := 0, 0
	next := func() {
		addr := all[started]
		started++
		go func() {
			c, err := t.cfg.Dial(ctx, addr)
			done <- attempt{c, addr, err}
		}()
	}
	defer func() { // those that are under way end soon
		cancel()
		for ; ended < started; ended++ {
			if a := <-done; a.c != nil {
				_ = a.c.Close() // nothing was said over it
			}
		}
	}()
	timer := time.NewTimer(attemptDelay)
	defer timer.Stop()
	next()
	var errs []error
	for {
		select {
		case a := <-done:
			ended++
			if a.err == nil {
				return a.c, a.addr, nil
			}
			errs = append(errs, a.err)
			if ended == len(all) {
				return nil, all[0], errors.Join(errs...)
			}
			if ended < started {
				continue // another one is being tried
			}
		case <-timer.C:
		}
		if started < len(all) {
			next()
			timer.Reset(attemptDelay)
		}
	}
}
