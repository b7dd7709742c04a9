package simnet

import (
	"slices"
	"testing"
	"time"
)

func run(seed uint64) (got []time.Duration) {
	s := New(seed)
	s.Conditions = Conditions{Loss: 0.3, Duplicate: 0.3, MinDelay: time.Millisecond, MaxDelay: 9 * time.Millisecond}
	for i := range 100 {
		s.At(time.Duration(i)*time.Millisecond, func() { s.Send(1, 2, func() { got = append(got, s.Now()) }) })
	}
	s.Run(time.Second, func() bool { return false })
	return got
}

func TestSameSeedSameRun(t *testing.T) {
	a, b, other := run(7), run(7), run(8)
	if !slices.Equal(a, b) {
		t.Error("the same seed gave two different runs")
	}
	if slices.Equal(a, other) {
		t.Error("two seeds gave the same run")
	}
	if !slices.IsSorted(a) {
		t.Error("time went backwards")
	}
}

func TestCutLosesAlsoWhatIsOnItsWay(t *testing.T) {
	s := New(1)
	s.Conditions = Conditions{MinDelay: 10 * time.Millisecond, MaxDelay: 10 * time.Millisecond}
	var got []string
	note := func(x string) func() { return func() { got = append(got, x) } }
	s.Send(1, 2, note("cut on the way"))
	s.Send(2, 1, note("other way"))
	s.After(5*time.Millisecond, func() { s.Cut(1, 2) })
	s.After(20*time.Millisecond, func() { s.Send(1, 2, note("cut at sending")) })
	s.After(50*time.Millisecond, func() { s.Heal(); s.Send(1, 2, note("healed")) })
	s.Run(time.Second, func() bool { return false })
	if !slices.Equal(got, []string{"other way", "healed"}) {
		t.Errorf("arrived: %q", got)
	}
}

func TestClock(t *testing.T) {
	c := Clock{Offset: time.Hour, Rate: 1.01}
	for _, d := range []time.Duration{0, time.Second, 99 * time.Hour} {
		if at := c.When(c.At(d)); at < d || at > d+time.Microsecond {
			t.Errorf("When(At(%v)) = %v", d, at)
		}
		if c.At(c.When(time.Hour+d)) < time.Hour+d {
			t.Errorf("the clock does not show %v yet at the time When gives", time.Hour+d)
		}
	}
}
