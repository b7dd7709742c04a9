package ra

import "time"

const (
	// Rate is how many solicitations are answered in a second. RFC 4861 section
	// 6.2.6 lets a router send one advertisement in 3 s; that is for those that hosts
	// act on. Ours is for machines that start together, and each waits for its own.
	Rate = 20
	// Silence is how long a real router that was heard keeps the responder silent,
	// unless its lifetime is longer: as often as routers must advertise at least
	// (MaxRtrAdvInterval, RFC 4861 section 6.2.1).
	Silence = 30 * time.Minute
)

// Responder decides whether a packet is answered. It is pure: its caller gives
// the time.
type Responder struct {
	tokens float64
	at     time.Time
	silent time.Time // a real router was heard: until then
}

// Handle reports whether the packet is to be answered with an Advertisement.
// The caller leaves out what this machine sent.
func (r *Responder) Handle(now time.Time, p Packet) bool {
	if len(p.Bytes) == 0 {
		return false
	}
	switch p.Bytes[0] {
	case typeAdvertisement:
		if a, err := ParseAdvertisement(p); err == nil && a.Offers {
			r.silent = now.Add(max(a.Lifetime, Silence))
		}
		return false
	case typeSolicitation:
		return ParseSolicitation(p) == nil && !now.Before(r.silent) && r.take(now)
	}
	return false
}

func (r *Responder) take(now time.Time) bool {
	if r.at.IsZero() {
		r.tokens, r.at = Rate, now
	}
	if d := now.Sub(r.at).Seconds(); d > 0 {
		r.tokens, r.at = min(Rate, r.tokens+d*Rate), now
	}
	if r.tokens < 1 {
		return false
	}
	r.tokens--
	return true
}
