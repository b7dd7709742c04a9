package ntp

import (
	"testing"
	"time"
)

// Of the samples the one with the least delay counts, while it is fresh.
func TestBest(t *testing.T) {
	var f filter
	if _, ok := f.best(0); ok {
		t.Error("nothing is best")
	}
	f.round([]Sample{{At: 0, Offset: 1, Delay: time.Millisecond, Stratum: 1}})
	f.round([]Sample{{At: 8 * time.Second, Offset: 2, Delay: 5 * time.Millisecond, Stratum: 1}})
	if best, _ := f.best(8 * time.Second); best.Offset != 1 {
		t.Errorf("best %+v", best)
	}
	// In ten minutes a clock may have drifted by more than the delays differ.
	f.round([]Sample{{At: 600 * time.Second, Offset: 3, Delay: 5 * time.Millisecond, Stratum: 1}})
	if best, _ := f.best(600 * time.Second); best.Offset != 3 {
		t.Errorf("best after ten minutes %+v", best)
	}
	for i := range 20 {
		f.round([]Sample{{Offset: time.Duration(i), Stratum: 1}})
	}
	if len(f.samples) != stages || f.reach != 0xff {
		t.Errorf("%d samples, reach %#x", len(f.samples), f.reach)
	}
	for range stages {
		f.round(nil)
	}
	if len(f.samples) != 0 || f.reach != 0 {
		t.Errorf("after silence %d samples, reach %#x", len(f.samples), f.reach)
	}
	for _, bad := range []Sample{{}, {Stratum: 16}, {Stratum: 1, Delay: -1}, {Stratum: 1, Offset: -maxOffset}, {Stratum: 1, RootDispersion: time.Minute}} {
		f.round([]Sample{bad})
	}
	if len(f.samples) != 0 {
		t.Errorf("nonsense was taken: %+v", f.samples)
	}
}

// What the kernel has slewed since a sample was taken is no offset any more.
func TestSamplesFollowTheClock(t *testing.T) {
	d := newDiscipline(false, false, DefaultStep, 0, false)
	d.follow(1)
	d.round(0, [][]Sample{{{At: 0, Offset: 3 * time.Millisecond, Delay: time.Millisecond, Stratum: 1}}})
	// 8 s later the 3 ms are slewed; this sample is worse than the first.
	d.round(8*time.Second, [][]Sample{{{At: 8 * time.Second, Offset: time.Millisecond, Delay: 10 * time.Millisecond, Stratum: 1}}})
	if d.offset.Abs() > 100*time.Microsecond {
		t.Errorf("offset %v, it was slewed to 0", d.offset)
	}
	d.filters[0].turned(10e-6, 108*time.Second)
	if got := d.filters[0].samples[0].Offset; (got - 1080*time.Microsecond).Abs() > 50*time.Microsecond {
		t.Errorf("a clock that was slow by 10 ppm for 108 s: offset %v", got)
	}
}

// On a network whose queues add milliseconds, a node is right nevertheless.
func TestJitteryNetwork(t *testing.T) {
	for seed := range uint64(50) {
		d := newDiscipline(false, true, DefaultStep, 0, false)
		s := newSim(t, seed, d, simServer{base: 100e-6, jitter: 2e-3, loss: 0.3})
		s.clock.drift = 50e-6
		s.runFor(time.Hour, lanPoll)
		s.stays(4*time.Hour, lanPoll, 2.5e-3)
	}
}
