package ntp

import (
	"math"
	"time"
)

// Limits of what is believed (RFC 5905, appendix A.1.1 and section 7.3).
const (
	stages      = 8                // samples kept of a server (NSTAGE)
	tolerance   = 15e-6            // how much a clock may drift, seconds a second (PHI)
	maxDistance = time.Second      // a server whose error may be larger is not used (MAXDIST)
	maxOffset   = 1 << 62          // of a sample, in nanoseconds: 146 years
	maxDelay    = 10 * time.Second // of a sample
	minDistance = 10 * time.Microsecond
)

// Sample is one answer of a server.
type Sample struct {
	At             time.Duration // when it arrived, monotonic
	Offset         time.Duration // what must be added to our clock
	Delay          time.Duration // of the round trip, 0 or more
	RootDelay      time.Duration // of the server to its reference
	RootDispersion time.Duration // error of the server's clock
	Stratum        uint8         // of the server, 1 to 15
}

// plausible reports whether the figures can be calculated with.
func (s Sample) plausible() bool {
	return s.Stratum >= 1 && s.Stratum <= 15 &&
		s.Offset > -maxOffset && s.Offset < maxOffset &&
		s.Delay >= 0 && s.Delay <= maxDelay &&
		s.RootDelay >= 0 && s.RootDelay <= maxDelay &&
		s.RootDispersion >= 0 && s.RootDispersion <= maxDelay
}

// distance is the greatest error the sample can have at a time, apart from
// jitter: half of the delays, and what both clocks may have drifted since.
func (s Sample) distance(now time.Duration) time.Duration {
	return max(s.Delay/2+s.RootDelay/2+s.RootDispersion+drifted(now-s.At), minDistance)
}

// drifted is by how much a clock may be off after d.
func drifted(d time.Duration) time.Duration {
	return time.Duration(tolerance * float64(max(d, 0)))
}

// filter keeps the last samples of a server, the newest last.
type filter struct {
	samples []Sample
	reach   uint8 // one bit a round, the newest lowest: answered or not
}

// round notes the answers of one round, maybe none.
func (f *filter) round(answers []Sample) {
	f.reach <<= 1
	for _, s := range answers {
		if !s.plausible() {
			continue
		}
		f.reach |= 1
		f.samples = append(f.samples, s)
	}
	if n := len(f.samples) - stages; n > 0 {
		f.samples = append(f.samples[:0], f.samples[n:]...)
	}
	if f.reach == 0 {
		f.samples = f.samples[:0]
	}
}

// best is the sample with the least error at a time.
func (f *filter) best(now time.Duration) (Sample, bool) {
	if len(f.samples) == 0 {
		return Sample{}, false
	}
	best := f.samples[0]
	for _, s := range f.samples[1:] {
		if s.Delay/2+drifted(now-s.At) <= best.Delay/2+drifted(now-best.At) {
			best = s
		}
	}
	return best, true
}

// jitter is the root mean square of what the samples differ from the best one
// (RFC 5905, section 10).
func (f *filter) jitter(best Sample) time.Duration {
	if len(f.samples) < 2 {
		return 0
	}
	sum := 0.0
	for _, s := range f.samples {
		d := (s.Offset - best.Offset).Seconds()
		sum += d * d
	}
	return seconds(math.Sqrt(sum / float64(len(f.samples)-1)))
}

// noise is how far off the best offset is, most times, because of queues on the
// way: seen from how much longer the others were under way. Unlike jitter it says
// nothing of the clock. Few samples do not tell; neither are many always alike.
func (f *filter) noise(best Sample) time.Duration {
	if len(f.samples) < stages/2 {
		return best.Delay / 4
	}
	var longer time.Duration
	for _, s := range f.samples {
		longer += max(s.Delay-best.Delay, 0)
	}
	return max(longer/time.Duration(2*len(f.samples)), best.Delay/16)
}

// moved corrects the samples for a clock that was set forward by d.
func (f *filter) moved(d time.Duration) {
	for i := range f.samples {
		f.samples[i].Offset -= d
	}
}

// turned corrects the samples for a clock that was found to be slow by rate
// (seconds a second), which is set right now: what was true when the sample was
// taken has grown since.
func (f *filter) turned(rate float64, now time.Duration) {
	for i := range f.samples {
		f.samples[i].Offset += time.Duration(rate * float64(now-f.samples[i].At))
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
