package registry

import (
	"maps"
	"slices"
	"time"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// Lease is what is known of a lease.
type Lease struct {
	ID       uint64
	Owner    id.Node       // who asked for it
	TTL      time.Duration // its life after the last renewal
	Renewals uint64        // how often it was renewed
	Keys     int           // how many keys hang on it
}

type lease struct {
	owner    id.Node
	ttl      uint64 // in milliseconds
	renewals uint64
	keys     map[string]struct{}
}

// Leases are all leases by ascending ID.
func (s *Store) Leases() []Lease {
	out := make([]Lease, 0, len(s.leases))
	for _, n := range slices.Sorted(maps.Keys(s.leases)) {
		l := s.leases[n]
		out = append(out, Lease{
			ID: n, Owner: l.owner, TTL: time.Duration(l.ttl) * time.Millisecond,
			Renewals: l.renewals, Keys: len(l.keys),
		})
	}
	return out
}

func noLease(n uint64) error {
	return errno.New(errno.NotFound, "", 0, "no lease %d: it has expired or was revoked", n)
}

func (s *Store) grant(g *LeaseGrant, res *Result) error {
	switch {
	case !validTTL(g.TtlMs):
		return errno.New(errno.Invalid, "", 0, "a lease lives between %v and %v", MinTTL, MaxTTL)
	case g.Owner > uint32(id.MaxNode) || !id.Node(g.Owner).Valid():
		return errno.New(errno.Invalid, "", 0, "%d is not a node number (1 to %d)", g.Owner, id.MaxNode)
	case len(s.leases) >= MaxLeases:
		return errno.New(errno.Full, "", 0, "there are %d leases, the limit", MaxLeases)
	}
	s.lastLease++
	s.leases[s.lastLease] = &lease{owner: id.Node(g.Owner), ttl: g.TtlMs, keys: map[string]struct{}{}}
	res.Lease = s.lastLease
	return nil
}

func validTTL(ms uint64) bool {
	return ms >= uint64(MinTTL.Milliseconds()) && ms <= uint64(MaxTTL.Milliseconds())
}

func (s *Store) renew(r *LeaseRenew) error {
	l := s.leases[r.Id]
	if l == nil {
		return noLease(r.Id)
	}
	l.renewals++
	return nil
}

func (s *Store) revoke(r *LeaseRevoke, res *Result) error {
	if s.leases[r.Id] == nil {
		return noLease(r.Id)
	}
	s.dropLease(r.Id, res)
	return nil
}

func (s *Store) expire(e *LeaseExpire, res *Result) error {
	l := s.leases[e.Id]
	if l == nil {
		return noLease(e.Id)
	}
	if l.renewals != e.Renewals {
		return errno.New(errno.Stale, "", 0, "lease %d was renewed meanwhile", e.Id)
	}
	s.dropLease(e.Id, res)
	return nil
}

// dropLease removes a lease and its keys, in key order.
func (s *Store) dropLease(n uint64, res *Result) {
	c := s.change()
	for _, key := range slices.Sorted(maps.Keys(s.leases[n].keys)) {
		c.remove(treeGet(s.now.root, key))
	}
	delete(s.leases, n)
	c.commit()
	res.Deleted = uint64(len(c.events))
}

// LeaseClock tells which leases look overdue. It is not replicated: a new
// leader starts a new one, and so gives every lease its whole life again. It
// never is too early, provided that its times never run ahead.
type LeaseClock struct {
	seen map[uint64]sighting
}

type sighting struct {
	renewals uint64
	at       time.Duration
}

// NewLeaseClock has seen no lease yet.
func NewLeaseClock() *LeaseClock { return &LeaseClock{seen: map[uint64]sighting{}} }

// Overdue looks at the leases at the time now (any monotonic clock) and returns
// an encoded LeaseExpire command for those whose last seen renewal is longer
// ago than they live, at most max of them. To be called at least a few times in
// the shortest TTL that is to be kept precisely.
func (c *LeaseClock) Overdue(s *Store, now time.Duration, max int) [][]byte {
	var cmds [][]byte
	for _, l := range s.Leases() {
		last, known := c.seen[l.ID]
		switch {
		case !known || last.renewals != l.Renewals:
			c.seen[l.ID] = sighting{l.Renewals, now}
		case now-last.at > l.TTL && len(cmds) < max:
			cmds = append(cmds, EncodeExpire(l.ID, l.Renewals))
		}
	}
	for n := range c.seen {
		if s.leases[n] == nil {
			delete(c.seen, n)
		}
	}
	return cmds
}
