package ics

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"ssi/internal/errno"
)

const (
	refusalPeriod = time.Minute // one line per source in this time
	refusalTable  = 1024        // sources remembered; beyond it nobody is added
)

// refusals logs refused connections, at most one line per source and minute, so
// that a scan does not fill the disk. A source is an address and the kind of the
// reason: a scan does not hide that an expired token came from there too.
type refusals struct {
	to   *slog.Logger
	now  func() time.Time
	mu   sync.Mutex
	seen map[source]*refusal
	lost int // refusals not logged because the table was full
}

type source struct {
	addr netip.Addr
	kind errno.Kind
}

type refusal struct {
	last  time.Time
	count int // not logged since last
}

func newRefusals(log *slog.Logger) *refusals {
	return &refusals{to: log, now: time.Now, seen: make(map[source]*refusal)}
}

func (r *refusals) log(addr netip.Addr, why error) {
	more, lost, ok := r.count(source{addr, errno.KindOf(why)})
	if ok {
		r.to.Warn("connection refused", "op", "accept", "peer", addr.String(), "err", why, "unlogged", more, "unlogged_others", lost)
	}
}

// count notes a refusal and decides whether to log it.
func (r *refusals) count(from source) (more, lost int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	e := r.seen[from]
	if e == nil {
		if len(r.seen) >= refusalTable {
			r.expire(now)
		}
		if len(r.seen) >= refusalTable {
			r.lost++
			return 0, 0, false
		}
		e = &refusal{}
		r.seen[from] = e
	} else if now.Sub(e.last) < refusalPeriod {
		e.count++
		return 0, 0, false
	}
	more, lost = e.count, r.lost
	e.last, e.count, r.lost = now, 0, 0
	return more, lost, true
}

func (r *refusals) expire(now time.Time) {
	for from, e := range r.seen {
		if now.Sub(e.last) >= refusalPeriod {
			delete(r.seen, from)
		}
	}
}
