package cluster

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ssi/cluster/core"
)

// told is what a fence said.
type told struct {
	mu  sync.Mutex
	all []Serving
	at  []time.Duration
	ch  chan struct{}
}

func newTold() *told { return &told{ch: make(chan struct{}, 64)} }

func (l *told) serving(s Serving) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all, l.at = append(l.all, s), append(l.at, boottime())
	l.ch <- struct{}{}
}

func (l *told) last() (Serving, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all[len(l.all)-1], l.at[len(l.at)-1]
}

// wait waits for the next call.
func (l *told) wait(t *testing.T) (Serving, time.Duration) {
	t.Helper()
	select {
	case <-l.ch:
	case <-time.After(patience):
		t.Fatal("the fence says nothing")
	}
	return l.last()
}

func granted(d time.Duration) *core.Status {
	until := boottime() + d
	return &core.Status{Serving: true, ServingUntil: until, Init: core.Hold{Held: true, Term: 5, Until: until}}
}

func runFence(t *testing.T, f *fence) context.CancelFunc {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = f.run(ctx) }()
	stop := func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func initTenure() *tenure {
	return newTenure("init", func(s *core.Status) core.Hold { return s.Init })
}

// TestFenceAlone: what was granted ends at its time although no other decision
// comes, as when the loop waits for a disk.
func TestFenceAlone(t *testing.T) {
	l, ten := newTold(), initTenure()
	f := newFence(l.serving, ten)
	runFence(t, f)
	if s, _ := l.wait(t); s != (Serving{Cause: "starting"}) {
		t.Errorf("at the start: %+v", s)
	}
	status := granted(200 * time.Millisecond)
	f.set(status)
	if s, _ := l.wait(t); !s.OK {
		t.Errorf("granted: %+v", s)
	}
	work, ok := ten.begin(t.Context(), core.Hold{Held: true, Term: 5})
	if !ok {
		t.Fatal("the tenure does not have the hold")
	}
	f.stuck("the disk is full")
	s, at := l.wait(t)
	if s != (Serving{Cause: "the disk is full"}) {
		t.Errorf("at the end: %+v", s)
	}
	if at < status.ServingUntil {
		t.Errorf("it ended %v early", status.ServingUntil-at)
	}
	<-work.Done() // the same moment
}

// TestFenceBeforeMessages: what a decision withdraws has ended when set returns,
// because the messages that follow may let another node take over.
func TestFenceBeforeMessages(t *testing.T) {
	l, ten := newTold(), initTenure()
	f := newFence(l.serving, ten)
	runFence(t, f)
	for i := range 50 {
		f.set(granted(time.Hour))
		work, ok := ten.begin(t.Context(), core.Hold{Held: true, Term: 5})
		if s, _ := l.last(); !ok || !s.OK {
			t.Fatalf("round %d: begin %v, serving %+v", i, ok, s)
		}
		// Init moves first, as when a leader hands over, then the node leaves.
		s := granted(time.Hour)
		s.Init = core.Hold{}
		f.set(s)
		if work.Err() == nil {
			t.Fatalf("round %d: the work goes on", i)
		}
		f.set(&core.Status{Reason: "leaving"})
		if s, _ := l.last(); s != (Serving{Cause: "leaving"}) {
			t.Fatalf("round %d: %+v", i, s)
		}
		for len(l.ch) > 0 {
			<-l.ch
		}
	}
}

func TestFenceStopped(t *testing.T) {
	l := newTold()
	f := newFence(l.serving)
	stop := runFence(t, f)
	f.set(granted(time.Hour))
	stop()
	if s, _ := l.last(); s != (Serving{Cause: "the daemon is stopping"}) {
		t.Errorf("stopped: %+v", s)
	}
	f.set(granted(time.Hour))
	if s, _ := l.last(); s.OK {
		t.Error("granted after the end")
	}
}

// TestTenure: while holds come and go at random, the work of two of them never
// overlaps, and none goes on after its hold.
func TestTenure(t *testing.T) {
	var active, runs atomic.Int32
	var mu sync.Mutex
	var contexts []context.Context
	ten := initTenure()
	ten.work = []func(context.Context){func(ctx context.Context) {
		if active.Add(1) > 1 {
			t.Error("the work of two holds overlaps")
		}
		defer active.Add(-1)
		runs.Add(1)
		mu.Lock()
		contexts = append(contexts, ctx)
		mu.Unlock()
		<-ctx.Done()
	}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); ten.run(ctx, slog.New(slog.DiscardHandler)) }()
	rng := rand.New(rand.NewPCG(1, 2))
	for term := uint64(1); term < 3000 || runs.Load() < 20; term++ {
		ten.set(core.Hold{Held: true, Term: term, Until: time.Hour})
		for range rng.IntN(300) { // now and then let the work begin
			if active.Load() > 0 {
				break
			}
		}
		ten.set(core.Hold{Until: time.Hour})
		mu.Lock()
		for _, c := range contexts {
			if c.Err() == nil {
				t.Errorf("term %d is over, the work goes on", term)
			}
		}
		contexts = nil
		mu.Unlock()
		if t.Failed() {
			break
		}
	}
	cancel()
	<-done
	t.Logf("the work ran %d times", runs.Load())
}

// TestTenureLate: a hold that ended before its work began starts no work.
func TestTenureLate(t *testing.T) {
	ten := initTenure()
	h := core.Hold{Held: true, Term: 1}
	ten.set(h)
	ten.set(core.Hold{})
	if _, ok := ten.begin(t.Context(), h); ok {
		t.Error("the work of a hold that is over began")
	}
}
