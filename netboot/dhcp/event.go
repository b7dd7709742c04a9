package dhcp

import (
	"fmt"
	"net/netip"
	"time"
)

// Kind is what an event is about.
type Kind int

// The kinds.
const (
	OtherServer  Kind = iota // Addr gives addresses on the same wire, too
	Declined                 // a machine found that Addr is in use by another one
	FixedTaken               // Addr, the fixed address of MAC, is not free: it gets another one
	RangeFull                // no address for MAC, which may boot
	GuestsFull               // no address for MAC, which may not boot
	GuestFlood               // more requests of machines that may not boot than GuestRate
	NoLoader                 // MAC may boot, but nothing fits its firmware
	StoreFailed              // leases could not be committed: nobody gets an address
	SendFailed               // an answer could not be sent
	SearchFailed             // other servers could not be searched for
)

// Event is something that an operator may want to know. The same one (kind,
// address) comes once a minute at most.
type Event struct {
	Kind Kind
	Addr netip.Addr // if the kind has one
	MAC  MAC        // if the kind has one
	Err  error      // cause, or nil
}

// String is the event in a line: what, where, why, what to do.
func (e Event) String() string {
	at := ""
	if e.MAC != (MAC{}) { // of a server that a machine only named, it is not known
		at = fmt.Sprintf(" at %v", e.MAC)
	}
	switch e.Kind {
	case OtherServer:
		return fmt.Sprintf("dhcp: another DHCP server, %v%s, answers on this network: turn one of them off, or use the mode proxy", e.Addr, at)
	case Declined:
		return fmt.Sprintf("dhcp: machine %v found address %v in use by another machine: it rests for %v; look for a machine that is configured with it", e.MAC, e.Addr, Quarantine)
	case FixedTaken:
		return fmt.Sprintf("dhcp: machine %v gets another address than its own, %v, which another machine still uses: end that, then restart this one", e.MAC, e.Addr)
	case RangeFull:
		return fmt.Sprintf("dhcp: no address for machine %v: every address of the range is in use; enlarge it", e.MAC)
	case GuestsFull:
		return fmt.Sprintf("dhcp: no address for machine %v, which is not approved: every address for such machines is in use", e.MAC)
	case GuestFlood:
		return fmt.Sprintf("dhcp: more requests of machines that are not approved than are answered; the last one from %v", e.MAC)
	case NoLoader:
		return fmt.Sprintf("dhcp: machine %v may boot, but there is no loader for it: %v", e.MAC, e.Err)
	case StoreFailed:
		return fmt.Sprintf("dhcp: no address is given, because the lease cannot be kept: %v", e.Err)
	case SendFailed:
		return fmt.Sprintf("dhcp: answer to machine %v: %v", e.MAC, e.Err)
	case SearchFailed:
		return fmt.Sprintf("dhcp: search for other DHCP servers: %v", e.Err)
	}
	return "dhcp: unknown event"
}

const (
	eventEvery = time.Minute
	maxEvents  = 128 // remembered; more are not reported
)

// limiter lets the same event pass once in eventEvery.
type limiter struct {
	last map[eventKey]time.Time
}

type eventKey struct {
	kind Kind
	addr netip.Addr
}

func newLimiter() *limiter { return &limiter{last: map[eventKey]time.Time{}} }

// allow reports whether the event passes.
func (l *limiter) allow(now time.Time, e Event) bool {
	key := eventKey{e.Kind, e.Addr}
	if at, ok := l.last[key]; ok && now.Sub(at) < eventEvery {
		return false
	}
	if len(l.last) >= maxEvents {
		for k, at := range l.last {
			if now.Sub(at) >= eventEvery {
				delete(l.last, k)
			}
		}
		if len(l.last) >= maxEvents {
			return false
		}
	}
	l.last[key] = now
	return true
}

// bucket is a token bucket: rate tokens a second, and at most as many at once.
type bucket struct {
	rate   float64
	tokens float64
	at     time.Time
}

func (b *bucket) take(now time.Time) bool {
	if d := now.Sub(b.at).Seconds(); d > 0 {
		b.tokens = min(b.rate, b.tokens+d*b.rate)
		b.at = now
	}
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
