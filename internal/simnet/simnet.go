// Package simnet is a seeded discrete-event simulation of a network and of
// clocks, for tests of protocol cores.
//
// One Sim is one run: its time advances only from event to event, all chance
// comes from its seed, and events due at the same time happen in the order they
// were made; so a run with the same seed and the same code is the same run. It
// is used by one goroutine and must never be used outside of tests.
//
// Messages are functions that are called when they arrive. A link may lose,
// delay, duplicate and (by differing delays) reorder them, and may be cut in one
// direction; a message is lost if its link is cut when it is sent or when it
// would arrive.
package simnet

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// Conditions is how all links behave. Probabilities are 0 to 1.
type Conditions struct {
	Loss      float64
	Duplicate float64
	MinDelay  time.Duration
	MaxDelay  time.Duration
	Spike     float64       // probability of a delay of up to SpikeDelay instead
	SpikeMax  time.Duration // longest such delay
}

// Sim is one simulated run.
type Sim struct {
	Conditions Conditions

	rng    *rand.Rand
	now    time.Duration
	events events
	made   uint64
	cuts   map[[2]int]bool
}

// New begins a run at time 0.
func New(seed uint64) *Sim {
	return &Sim{rng: rand.New(rand.NewPCG(seed, 0x5551)), cuts: map[[2]int]bool{}}
}

// Rand is the run's only source of chance.
func (s *Sim) Rand() *rand.Rand { return s.rng }

// Now is the true time of the run; no simulated node can see it.
func (s *Sim) Now() time.Duration { return s.now }

// At calls f at time t, or at once if that is past.
func (s *Sim) At(t time.Duration, f func()) {
	s.made++
	heap.Push(&s.events, event{at: max(t, s.now), n: s.made, f: f})
}

// After calls f when d has passed.
func (s *Sim) After(d time.Duration, f func()) { s.At(s.now+d, f) }

// Run lets everything happen until time t, or until stop, called after each
// event, returns true; it reports whether stop did.
func (s *Sim) Run(t time.Duration, stop func() bool) bool {
	for len(s.events) > 0 && s.events[0].at <= t {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		e.f()
		if stop() {
			return true
		}
	}
	s.now = max(s.now, t)
	return false
}

// Cut loses everything that a sends to b; Join ends that.
func (s *Sim) Cut(a, b int) { s.cuts[[2]int{a, b}] = true }

// Join undoes Cut.
func (s *Sim) Join(a, b int) { delete(s.cuts, [2]int{a, b}) }

// Heal undoes every Cut.
func (s *Sim) Heal() { clear(s.cuts) }

// Send carries a message of a to b: arrive is called never, once, or twice.
func (s *Sim) Send(a, b int, arrive func()) {
	copies := 1
	if s.rng.Float64() < s.Conditions.Duplicate {
		copies = 2
	}
	for range copies {
		if s.rng.Float64() < s.Conditions.Loss || s.cuts[[2]int{a, b}] {
			continue
		}
		s.After(s.delay(), func() {
			if !s.cuts[[2]int{a, b}] {
				arrive()
			}
		})
	}
}

func (s *Sim) delay() time.Duration {
	c := s.Conditions
	if c.Spike > 0 && s.rng.Float64() < c.Spike {
		return c.MinDelay + time.Duration(s.rng.Int64N(int64(c.SpikeMax)+1))
	}
	return c.MinDelay + time.Duration(s.rng.Int64N(int64(c.MaxDelay-c.MinDelay)+1))
}

// Clock is a node's own clock.
type Clock struct {
	Offset time.Duration // what it shows at true time 0
	Rate   float64       // how fast it runs: 1 is true
}

// At is what the clock shows at true time t.
func (c Clock) At(t time.Duration) time.Duration {
	return c.Offset + time.Duration(float64(t)*c.Rate)
}

// When is the first true time at which the clock shows at least local.
func (c Clock) When(local time.Duration) time.Duration {
	return time.Duration(float64(local-c.Offset)/c.Rate) + 1
}

type event struct {
	at time.Duration
	n  uint64
	f  func()
}

// events is a heap by time, then by age.
type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].n < e[j].n
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	old[len(old)-1] = event{}
	*e = old[:len(old)-1]
	return x
}
