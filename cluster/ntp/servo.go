package ntp

import (
	"math"
	"time"
)

const (
	// MaxFrequency is how far the frequency of a clock can be corrected, in parts
	// per million (MAXFREQ, include/linux/timex.h).
	MaxFrequency = 500.0
	// slewRate is how fast the kernel slews, in seconds a second (MAX_TICKADJ,
	// kernel/time/ntp.c).
	slewRate = 500e-6

	// The lowest gains of the servo. With these two it is critically damped:
	// beta = alpha²/(2-alpha).
	minAlpha = 0.3
	minBeta  = 0.053
)

// servo is an alpha-beta filter: it predicts the offset from what it had the
// clock slewed, and shares out what the measurement differs from that. The gains
// of the n-th update are those of a straight line through all n measurements, and
// end at minAlpha and minBeta. (The PI servo of facebook/time reads the clock by
// itself and logs through a package, so it cannot be simulated.)
type servo struct {
	n      int           // updates
	at     time.Duration // of the last one
	freq   float64       // correction of the frequency in force, seconds a second
	offset time.Duration // estimated at the last update, and then slewed
}

// slewed is how much of the estimated offset the kernel has slewed by now.
func (s *servo) slewed(now time.Duration) time.Duration {
	limit := time.Duration(slewRate * float64(max(now-s.at, 0)))
	return min(max(s.offset, -limit), limit)
}

// advance makes now the time of the estimate and returns by how much the clock
// was moved since.
func (s *servo) advance(now time.Duration) time.Duration {
	d := s.slewed(now)
	s.offset -= d
	s.at = now
	return d
}

// update takes a measured offset, dt after the one before it; advance was called.
// It returns by how much the frequency changed.
func (s *servo) update(offset, dt time.Duration) (turned float64) {
	residual := offset - s.offset
	s.n = min(s.n+1, 1000)
	n := float64(s.n)
	alpha := max(2*(2*n-1)/(n*(n+1)), minAlpha)
	beta := max(6/(n*(n+1)), minBeta)
	if s.n == 1 { // one point has no slope
		beta = 0
	}
	s.offset += seconds(min(alpha, 1) * residual.Seconds())
	if dt <= 0 || beta == 0 {
		return 0
	}
	before := s.freq
	s.freq += min(beta, 1) * residual.Seconds() / dt.Seconds()
	s.freq = math.Min(math.Max(s.freq, -MaxFrequency/1e6), MaxFrequency/1e6)
	return s.freq - before
}

// stepped tells that the clock was set right.
func (s *servo) stepped() { s.offset = 0 }

// loosen makes the servo quicker again, for a new source: the frequency is known
// from before, the offset is not.
func (s *servo) loosen() { s.n = min(s.n, 4) }
