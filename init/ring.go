package pid1

import (
	"sync"

	"ssi/internal/keeper"
	"ssi/internal/proc"
)

// ring holds the exit reports that the node role has not been sent yet: the
// last keeper.MaxExits; older ones are dropped and counted.
type ring struct {
	more chan struct{} // of capacity 1: there may be reports

	mu      sync.Mutex
	exits   []proc.Exit // grows to keeper.MaxExits only if the node role is away
	first   int         // the oldest, once len(exits) is keeper.MaxExits
	taken   bool        // some are being sent
	dropped uint64
}

func (r *ring) add(e proc.Exit) {
	r.mu.Lock()
	if len(r.exits) < keeper.MaxExits {
		r.exits = append(r.exits, e)
	} else {
		r.exits[r.first] = e
		r.first = (r.first + 1) % keeper.MaxExits
		r.dropped++
	}
	r.mu.Unlock()
	select {
	case r.more <- struct{}{}:
	default:
	}
}

// empty reports whether no report waits or is being sent, so that one may be sent
// past the ring.
func (r *ring) empty() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.exits) == 0 && !r.taken
}

// take removes all reports, oldest first, and tells how many were dropped since
// the last call; those of the last call were sent.
func (r *ring) take() (exits []proc.Exit, dropped uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	exits = append(append(exits, r.exits[r.first:]...), r.exits[:r.first]...)
	dropped = r.dropped
	r.first, r.dropped = 0, 0
	if cap(r.exits) > 64 {
		r.exits = nil
	}
	r.exits = r.exits[:0]
	r.taken = len(exits) > 0
	return exits, dropped
}

// release tells that nothing is being sent any more.
func (r *ring) release() {
	r.mu.Lock()
	r.taken = false
	r.mu.Unlock()
}
