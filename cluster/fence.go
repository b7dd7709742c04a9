package cluster

import (
	"context"
	"sync"
	"time"

	"ssi/cluster/core"
)

// fenceCheck is how often the fence looks at the clock when nothing is due: its
// timers stand still while the machine sleeps, the leases do not.
const fenceCheck = 125 * time.Millisecond

// Serving says whether this node may act as a member, and why not.
type Serving struct {
	OK    bool
	Cause string // why not
}

// fence turns the permissions that the core grants until a time into calls at
// that time. Whoever notices first carries them out: the loop, so that what the
// core withdrew has ended before the others hear of it (core.Output), or the
// goroutine run, which depends on nothing that can block: not on the disk, not
// on the loop.
type fence struct {
	onServing func(Serving)
	tenures   []*tenure // what else ends at a time

	mu      sync.Mutex
	holds   []core.Hold // the newest decisions: to serve, then those of tenures
	cause   string
	late    string // why decisions are late, if that is known
	stopped bool   // run has ended: nothing is granted any more
	told    *Serving
	wake    chan struct{} // holds a token when something is due before run looks again
}

func newFence(onServing func(Serving), tenures ...*tenure) *fence {
	return &fence{onServing: onServing, tenures: tenures, holds: make([]core.Hold, 1+len(tenures)),
		cause: "starting", wake: make(chan struct{}, 1)}
}

// set takes the core's newest decision. What it withdraws has ended when set
// returns.
func (f *fence) set(s *core.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.holds[0] = core.Hold{Held: s.Serving, Until: s.ServingUntil}
	for i, t := range f.tenures {
		f.holds[1+i] = t.of(s)
	}
	f.late = "the lease was not renewed in time"
	if s.Reason != "" {
		f.cause = s.Reason
	}
	if f.apply(boottime()) < fenceCheck {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

// stuck says why no newer decision will come for a while.
func (f *fence) stuck(cause string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.late = cause
}

// apply carries out what holds at the time now and returns for how long that
// stays so, at most fenceCheck. The caller holds mu.
func (f *fence) apply(now time.Duration) time.Duration {
	next := fenceCheck
	for _, h := range f.holds {
		if h.At(now) && !f.stopped {
			next = min(next, h.Until-now)
		}
	}
	serving := Serving{OK: f.holds[0].At(now) && !f.stopped}
	switch {
	case serving.OK:
	case f.stopped:
		serving.Cause = "the daemon is stopping"
	case f.holds[0].Held:
		serving.Cause = f.late
	default:
		serving.Cause = f.cause
	}
	changed := f.told == nil || serving.OK != f.told.OK
	if changed && serving.OK { // whoever holds init serves, so that begins first and ends last
		f.onServing(serving)
	}
	for i, t := range f.tenures {
		h := f.holds[1+i]
		t.set(core.Hold{Held: h.At(now) && !f.stopped, Term: h.Term})
	}
	if changed && !serving.OK {
		f.onServing(serving)
	}
	if changed {
		f.told = &serving
	}
	return next
}

// run withdraws what ran out, until ctx ends, and then everything.
func (f *fence) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for stopped := false; !stopped; {
		stopped = ctx.Err() != nil
		f.mu.Lock()
		f.stopped = stopped
		next := f.apply(boottime())
		f.mu.Unlock()
		timer.Reset(next)
		select {
		case <-f.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}
