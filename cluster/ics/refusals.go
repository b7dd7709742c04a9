package ics

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

const (
	refusalPeriod = time.Minute // one line per address in this time
	refusalTable  = 1024        // addresses remembered; beyond it nobody is added
)

// refusals logs refused connections, at most one line per address and minute,
// so that a scan does not fill the disk.
type refusals struct {
	to   *slog.Logger
	now  func() time.Time
	mu   sync.Mutex
	seen map[netip.Addr]*refusal
	lost int // refusals not logged because the table was full
}

type refusal struct {
	last  time.Time
	count int // not logged since last
}

func newRefusals(log *slog.Logger) *refusals {
	return &refusals{to: log, now: time.Now, seen: make(map[netip.Addr]*refusal)}
}

func (r *refusals) log(addr netip.Addr, why error) {
	more, lost, ok := r.count(addr)
	if ok {
		r.to.Warn("connection refused", "op", "accept", "peer", addr.String(), "err", why, "unlogged", more, "unlogged_others", lost)
	}
}

// count notes a refusal and decides whether to log it.
func (r *refusals) count(addr netip.Addr) (more, lost int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	e := r.seen[addr]
	if e == nil {
		if len(r.seen) >= refusalTable {
			r.expire(now)
		}
		if len(r.seen) >= refusalTable {
			r.lost++
			return 0, 0, false
		}
		e = &refusal{}
		r.seen[addr] = e
	} else if now.Sub(e.last) < refusalPeriod {
		e.count++
		return 0, 0, false
	}
	more, lost = e.count, r.lost
	e.last, e.count, r.lost = now, 0, 0
	return more, lost, true
}

func (r *refusals) expire(now time.Time) {
	for addr, e := range r.seen {
		if now.Sub(e.last) >= refusalPeriod {
			delete(r.seen, addr)
		}
	}
}
