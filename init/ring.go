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
	kept    bool // another role left a file
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
	r.wake()
}

// tellKept notes that another role left a file.
func (r *ring) tellKept() {
	r.mu.Lock()
	r.kept = true
	r.mu.Unlock()
	r.wake()
}

func (r *ring) wake() {
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
// the last call, and whether a file was left; those of the last call were sent.
func (r *ring) take() (exits []proc.Exit, dropped uint64, kept bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	exits = append(append(exits, r.exits[r.first:]...), r.exits[:r.first]...)
	dropped, kept = r.dropped, r.kept
	r.first, r.dropped, r.kept = 0, 0, false
	if cap(r.exits) > 64 {
		r.exits = nil
	}
	r.exits = r.exits[:0]
	r.taken = len(exits) > 0
	return exits, dropped, kept
}

// put brings back reports of the last take that were not sent.
func (r *ring) put(exits []proc.Exit) {
	for _, e := range exits {
		r.add(e)
	}
	r.mu.Lock()
	r.taken = false
	r.mu.Unlock()
}
