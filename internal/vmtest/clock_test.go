package vmtest

import (
	"math/rand/v2"
	"testing"
	"time"
)

// The bounds hold whatever the delays are, and come close to the truth.
func TestAhead(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		truth := time.Duration(rng.NormFloat64() * float64(time.Second))
		if seed%10 == 0 {
			truth += 11 * time.Hour
		}
		now := time.Duration(rng.Int64N(int64(day)))
		if seed%3 == 0 {
			now = day - 300*time.Millisecond // midnight comes meanwhile
		}
		a := Ahead{-day, day}
		for range clockQuestions {
			there := 100*time.Microsecond + time.Duration(rng.ExpFloat64()*float64(time.Millisecond))
			back := 300*time.Microsecond + time.Duration(rng.ExpFloat64()*float64(5*time.Millisecond))
			ms := uint32(((now + there + truth + day) % day) / time.Millisecond)
			a = a.narrow(ms, now%day, (now+there+back)%day)
			now += there + back + time.Duration(rng.Int64N(int64(2*clockGap)))
		}
		if a.Low > truth || a.High < truth {
			t.Fatalf("seed %d: %v is not between %v and %v", seed, truth, a.Low, a.High)
		}
		if a.Error() > time.Millisecond {
			t.Errorf("seed %d: the error is up to %v", seed, a.Error())
		}
	}
	a, b := Ahead{1, 3}, Ahead{-5, -1}
	if d := a.Minus(b); d != (Ahead{2, 8}) || d.Middle() != 5 || d.Error() != 3 {
		t.Errorf("the difference is %+v", d)
	}
}
