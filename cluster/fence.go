package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	"ssi/cluster/core"
)

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
	alarm   *alarm        // of run; nil before it and after
	due     time.Duration // when the alarm goes off; 0: never
}

func newFence(onServing func(Serving), tenures ...*tenure) *fence {
	return &fence{onServing: onServing, tenures: tenures, holds: make([]core.Hold, 1+len(tenures)),
		cause: "starting"}
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
	f.apply(boottime())
}

// stuck says why no newer decision will come for a while.
func (f *fence) stuck(cause string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.late = cause
}

// apply carries out what holds at the time now. The caller holds mu.
func (f *fence) apply(now time.Duration) {
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
	f.arm(now)
}

// arm makes the alarm go off when the first hold ends. An alarm that comes too
// early costs a look; so it is set again only when it would come too late, and not
// for every renewal. The caller holds mu.
func (f *fence) arm(now time.Duration) {
	first := time.Duration(0)
	for _, h := range f.holds {
		if h.At(now) && (first == 0 || h.Until < first) {
			first = h.Until
		}
	}
	if f.alarm == nil || first == 0 || f.due > now && f.due <= first {
		return
	}
	if err := f.alarm.set(first); err != nil {
		panic("the lease's alarm cannot be set: " + err.Error()) // the descriptor is ours
	}
	f.due = first
}

// run withdraws what ran out, until ctx ends, and then everything. Without an alarm
// nothing is granted.
func (f *fence) run(ctx context.Context) error {
	defer f.end()
	a, err := newAlarm()
	if err != nil {
		return fmt.Errorf("watch the lease: %w", err)
	}
	defer a.close()
	f.mu.Lock()
	f.alarm = a
	f.apply(boottime())
	f.mu.Unlock()
	for ctx.Err() == nil {
		a.wait(ctx)
		f.mu.Lock()
		f.apply(boottime())
		f.mu.Unlock()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.alarm = nil
	return nil
}

// end withdraws everything for good.
func (f *fence) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = true
	f.apply(boottime())
}
