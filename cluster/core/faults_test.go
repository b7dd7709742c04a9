package core

import (
	"strings"
	"testing"
	"time"
)

// TestChecksNotice breaks one rule after the other and expects that the checks of
// the simulation notice: without that, that they are silent would mean nothing.
func TestChecksNotice(t *testing.T) {
	for _, c := range []struct {
		name   string
		broken faults
		says   string // part of what the checker must say
		limit  uint64 // schedules to try at most
	}{
		{"leader lease too long", faults{longLeader: true}, "two init holders at once", 400},
		{"no fence", faults{noFence: true}, "after it was declared dead", 60},
		{"nodes declared dead too early", faults{earlyExpire: true}, "after it was declared dead", 60},
		{"commands not deduplicated", faults{noDedupe: true}, "times", 60},
		{"reads of old state", faults{dirtyRead: true}, "not linearizable", 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= c.limit; seed++ {
				w := newChaos(seed, c.broken)
				w.run()
				if w.failed() && strings.Contains(strings.Join(w.failures, "\n"), c.says) {
					t.Logf("noticed by schedule %d: %s", seed, w.failures[0])
					return
				}
			}
			t.Errorf("%d schedules, and no check noticed", c.limit)
		})
	}
}

// TestVotersKeepTheirPromise cuts the leader from one voter. That one
// asks the other for its vote; a voter that forgets what it promised to the
// leader makes a second leader while the first still holds its lease.
func TestVotersKeepTheirPromise(t *testing.T) {
	noticed := 0
	for i := range 20 {
		seed, forget := uint64(1+i/2), i%2 == 1
		w := newWorld(seed, 3, fast(t))
		w.faults.noGuard, w.tracing = forget, true
		w.startAll()
		runUntil(t, w, 10*time.Second, "settled", w.up)
		waitVoters(t, w, 1, 2, 3)
		runFor(t, w, 500*time.Millisecond)
		w.Cut(1, 3)
		w.Cut(3, 1)
		w.Run(w.Now()+1200*time.Millisecond, func() bool { w.check(); return w.failed() })
		two := strings.Contains(strings.Join(w.failures, ""), "two init holders at once")
		if !forget && w.failed() {
			t.Errorf("seed %d: %s", seed, w.report())
		}
		if two {
			noticed++
		}
	}
	if noticed == 0 {
		t.Error("no check noticed that voters forget")
	}
}
