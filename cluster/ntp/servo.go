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
	// beta = alpha²/(2-alpha). They count after so many updates.
	minAlpha = 0.3
	minBeta  = 0.053
	settled  = 8
	// usualFrequency is how far the frequency of a clock is off, most times, as a
	// share of 1: a crystal, or what a kernel finds out of the clock of a machine.
	// knownFrequency is how far that of an earlier run is off now.
	usualFrequency = 50e-6
	knownFrequency = 5e-6
	leastNoise     = time.Microsecond
)

// servo predicts the offset from what it had the clock slewed, and shares out
// what the measurement differs from that. The shares are those of a Kalman filter
// that knows how noisy a measurement is, and that most clocks are not far off in
// frequency: two noisy measurements a second apart say nothing about it. At the
// end it is an alpha-beta filter. (The PI servo of facebook/time reads the clock
// by itself and logs through a package, so it cannot be simulated.)
type servo struct {
	n      int           // updates
	at     time.Duration // of the last one
	freq   float64       // correction of the frequency in force, seconds a second
	offset time.Duration // estimated at the last update, and then slewed

	// How well the two are known: variances and covariance, in seconds.
	varOffset, varFreq, cov float64
}

// newServo starts with the frequency correction of an earlier run in parts per
// million, if that is known.
func newServo(ppm float64, known bool) servo {
	if known {
		return servo{freq: ppm / 1e6, varFreq: knownFrequency * knownFrequency}
	}
	return servo{varFreq: usualFrequency * usualFrequency}
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

// update takes a measured offset, dt after the one before it, which may be wrong by
// noise (its standard deviation); advance was called. It returns by how much the
// frequency changed.
func (s *servo) update(offset, dt, noise time.Duration) (turned float64) {
	residual := (offset - s.offset).Seconds()
	alpha, beta := s.gains(max(dt, 0).Seconds(), max(noise, leastNoise).Seconds())
	s.offset += seconds(alpha * residual)
	if dt <= 0 {
		return 0
	}
	before := s.freq
	s.freq += beta * residual / dt.Seconds()
	s.freq = math.Min(math.Max(s.freq, -MaxFrequency/1e6), MaxFrequency/1e6)
	return s.freq - before
}

// gains are the shares of a residual that are taken for an error of the offset
// and, over dt, of the frequency.
func (s *servo) gains(dt, noise float64) (alpha, beta float64) {
	s.n = min(s.n+1, 1000)
	if s.n == 1 { // nothing is known of the offset, and one point has no slope
		s.varOffset, s.cov = noise*noise, 0
		return 1, 0
	}
	s.varOffset += dt * (2*s.cov + dt*s.varFreq)
	s.cov += dt * s.varFreq
	total := s.varOffset + noise*noise
	alpha, slope := s.varOffset/total, s.cov/total
	s.varFreq -= slope * s.cov
	s.varOffset *= 1 - alpha
	s.cov *= 1 - alpha
	beta = slope * dt
	if s.n > settled {
		alpha, beta = max(alpha, minAlpha), max(beta, minBeta)
	}
	return alpha, min(beta, 1)
}

// stepped tells that the clock was set by a measurement.
func (s *servo) stepped(noise time.Duration) {
	s.n, s.offset = 0, 0
	s.gains(0, max(noise, leastNoise).Seconds())
}

// loosen forgets the offset, for a new source. The frequency is known from before.
func (s *servo) loosen() { s.n = 0 }
