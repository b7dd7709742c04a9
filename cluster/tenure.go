package cluster

import (
	"context"
	"log/slog"
	"sync"

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

	mu      sync.Mutex            // after fence.mu
	present *Published[core.Hold] // what holds now; Until is not set
	cancel  context.CancelCauseFunc
}

func newTenure(name string, of func(*core.Status) core.Hold, work ...func(context.Context)) *tenure {
	return &tenure{name: name, of: of, work: work, present: newPublished(core.Hold{})}
}

// set is called by the fence with what holds now.
func (t *tenure) set(h core.Hold) {
	if !h.Held {
		h = core.Hold{}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.present.Load() == h {
		return
	}
	if t.cancel != nil {
		t.cancel(errno.New(errno.Stale, t.name, 0, "another node may do this now"))
		t.cancel = nil
	}
	t.present.set(h)
}

// begin makes the context of the work for a hold, if it still is the present one.
func (t *tenure) begin(parent context.Context, h core.Hold) (context.Context, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.present.Load() != h {
		return nil, false
	}
	ctx, cancel := context.WithCancelCause(parent)
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
		log.Info("hold begins", "op", t.name, "term", h.Term)
		var wg sync.WaitGroup
		for _, f := range t.work {
			wg.Go(func() { f(work) })
		}
		<-work.Done()
		log.Info("hold ends", "op", t.name, "term", h.Term)
		wg.Wait()
	}
}
