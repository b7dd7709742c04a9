package cluster

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"ssi/cluster/core"
	"ssi/internal/errno"
)

// tenure is work that only one node of the cluster may do at a time, for as long
// as a hold lasts: that of the leader, or that of init. The fence cuts the work's
// context at the moment the hold ends; another goroutine runs the work and waits
// for it.
type tenure struct {
	name string
	of   func(*core.Status) core.Hold
	work []func(context.Context)

	granted *Published[core.Hold] // the newest decision of the core
	present *Published[core.Hold] // what holds now; Until is not set

	mu     sync.Mutex // a leaf
	cancel context.CancelCauseFunc
}

func newTenure(name string, of func(*core.Status) core.Hold, work ...func(context.Context)) *tenure {
	return &tenure{name: name, of: of, work: work,
		granted: newPublished(core.Hold{}), present: newPublished(core.Hold{})}
}

// set is called by the fence: what holds at the time now.
func (t *tenure) set(h core.Hold, now time.Duration) {
	next := core.Hold{Held: h.At(now)}
	if next.Held {
		next.Term = h.Term
	}
	if t.present.Load() == next {
		return
	}
	t.mu.Lock()
	if t.cancel != nil {
		t.cancel(errno.New(errno.Stale, t.name, 0, "another node may do this now"))
		t.cancel = nil
	}
	t.mu.Unlock()
	t.present.set(next)
}

// begin makes the context of the work for a hold, if it still is the present one.
func (t *tenure) begin(parent context.Context, h core.Hold) (context.Context, bool) {
	ctx, cancel := context.WithCancelCause(parent)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.present.Load() != h {
		cancel(nil)
		return ctx, false
	}
	t.cancel = cancel
	return ctx, true
}

// run does the work whenever this node has the hold, until ctx ends. Before the
// work starts again, all of it has ended.
func (t *tenure) run(ctx context.Context, log *slog.Logger) {
	for {
		h, err := t.present.Wait(ctx, func(h core.Hold) bool { return h.Held })
		if err != nil {
			return
		}
		work, ok := t.begin(ctx, h)
		if !ok {
			continue
		}
		log.Info("this node holds "+t.name, "term", h.Term)
		var wg sync.WaitGroup
		for _, f := range t.work {
			wg.Go(func() { f(work) })
		}
		<-work.Done()
		log.Info("this node no longer holds "+t.name, "term", h.Term)
		wg.Wait()
	}
}
