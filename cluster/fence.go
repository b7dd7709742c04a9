package cluster

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ssi/cluster/core"
)

// boottime is the clock that leases are measured with: it goes on while the
// machine sleeps (clock_gettime(2), CLOCK_BOOTTIME).
func boottime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // the clock exists since Linux 2.6.39
	}
	return time.Duration(ts.Nano())
}

// Serving says whether this node may act as a member, and why not.
type Serving struct {
	OK    bool
	Since time.Duration // CLOCK_BOOTTIME
	Cause string        // why not
}

// fence turns the permissions that the core grants until a time into calls at
// that time. Its goroutine depends on nothing that can block: not on the disk,
// not on the loop.
type fence struct {
	onServing func(Serving)
	tenures   []*tenure // what else ends at a time

	mu      sync.Mutex
	serving core.Hold // Until of the permission to serve
	cause   string
	late    string        // why decisions are late, if that is known
	wake    chan struct{} // holds a token when something changed
}

func newFence(onServing func(Serving), tenures ...*tenure) *fence {
	return &fence{onServing: onServing, tenures: tenures, cause: "starting", wake: make(chan struct{}, 1)}
}

// set takes the core's newest decision.
func (f *fence) set(s *core.Status) {
	for _, t := range f.tenures {
		t.granted.set(t.of(s))
	}
	f.mu.Lock()
	f.serving = core.Hold{Held: s.Serving, Until: s.ServingUntil}
	f.late = "the lease was not renewed in time"
	if s.Reason != "" {
		f.cause = s.Reason
	}
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// stuck says why no newer decision will come for a while.
func (f *fence) stuck(cause string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.late = cause
}

// run applies decisions until ctx ends, and then withdraws them.
func (f *fence) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	first := true
	serving := Serving{}
	for {
		now := boottime()
		f.mu.Lock()
		may, cause, late := f.serving, f.cause, f.late
		f.mu.Unlock()
		if ctx.Err() != nil {
			may, cause = core.Hold{}, "the daemon is stopping"
		}
		if may.Held && !may.At(now) {
			cause = late
		}
		if ok := may.At(now); first || ok != serving.OK {
			first = false
			serving = Serving{OK: ok, Since: now}
			if !ok {
				serving.Cause = cause
			}
			f.onServing(serving)
		}
		next := time.Hour
		if may.At(now) {
			next = may.Until - now
		}
		for _, t := range f.tenures {
			hold := t.granted.Load()
			if ctx.Err() != nil {
				hold = core.Hold{}
			}
			t.set(hold, now)
			if hold.At(now) {
				next = min(next, hold.Until-now)
			}
		}
		if ctx.Err() != nil {
			return
		}
		timer.Reset(next)
		select {
		case <-f.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}
