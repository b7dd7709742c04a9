package vm

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"
)

const (
	maxFaults = 1024
	// MaxDelay is the longest delay of a fault.
	MaxDelay = time.Minute
)

// Fault is what happens to the frames from one port to another. The zero Fault
// is none.
type Fault struct {
	Cut    bool
	Loss   float64       // probability, 0 to 1, that a frame is lost
	Delay  time.Duration // 0 to MaxDelay
	Jitter time.Duration // up to so much is added to Delay, differently for each frame: frames overtake each other
}

func (f Fault) check() error {
	switch {
	case !(f.Loss >= 0 && f.Loss <= 1): // NaN too
		return fmt.Errorf("loss %v is not between 0 and 1", f.Loss)
	case f.Delay < 0 || f.Delay > MaxDelay:
		return fmt.Errorf("delay %v is not between 0 and %v", f.Delay, MaxDelay)
	case f.Jitter < 0 || f.Jitter > MaxDelay:
		return fmt.Errorf("jitter %v is not between 0 and %v", f.Jitter, MaxDelay)
	}
	return nil
}

// pair is a direction between two ports; "" is every port.
type pair struct{ from, to string }

// faults decides what becomes of frames. The decisions for a pair of ports
// depend on the seed and on how many frames went from the one to the other
// under faults of chance, and on nothing else.
type faults struct {
	seed   uint64
	set    map[pair]Fault
	chance map[pair]*rand.Rand // at most the square of MaxPorts
}

func newFaults(seed uint64) *faults {
	return &faults{seed: seed, set: map[pair]Fault{}, chance: map[pair]*rand.Rand{}}
}

func (f *faults) put(p pair, fault Fault) error {
	if err := fault.check(); err != nil {
		return err
	}
	if fault == (Fault{}) {
		delete(f.set, p)
		return nil
	}
	if _, ok := f.set[p]; !ok && len(f.set) >= maxFaults {
		return errors.New("there are too many faults: remove some")
	}
	f.set[p] = fault
	return nil
}

// decide says how long a frame takes from one port to another and whether it is
// lost. The faults of all matching pairs add up.
func (f *faults) decide(from, to string) (delay time.Duration, lost bool) {
	if len(f.set) == 0 {
		return 0, false
	}
	arrives, jitter := 1.0, time.Duration(0)
	for _, p := range [4]pair{{from, to}, {from, ""}, {"", to}, {"", ""}} {
		fault, ok := f.set[p]
		if !ok {
			continue
		}
		if fault.Cut {
			return 0, true
		}
		arrives *= 1 - fault.Loss
		delay += fault.Delay
		jitter += fault.Jitter
	}
	if arrives == 1 && jitter == 0 {
		return delay, false
	}
	rng := f.rng(pair{from, to})
	// Both are drawn for each frame, so that a change of the one fault does not
	// shift the other's luck.
	lost = rng.Float64() >= arrives
	if more := rng.Float64(); jitter > 0 {
		delay += time.Duration(more * float64(jitter))
	}
	return delay, lost
}

func (f *faults) rng(p pair) *rand.Rand {
	if r := f.chance[p]; r != nil {
		return r
	}
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%s>%s", p.from, p.to) // a hash never fails
	r := rand.New(rand.NewPCG(f.seed, h.Sum64()))
	f.chance[p] = r
	return r
}
