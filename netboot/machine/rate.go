package machine

import "time"

// bucket is a rate limit: a number of events at once, refilled at a rate.
type bucket struct {
	tokens float64
	at     time.Time
}

// take reports whether one more event is allowed now, of at most burst at once and
// perSecond on average. The zero bucket is full.
func (b *bucket) take(now time.Time, burst, perSecond float64) bool {
	if b.at.IsZero() {
		b.tokens = burst
	} else if d := now.Sub(b.at).Seconds(); d > 0 {
		b.tokens = min(burst, b.tokens+d*perSecond)
	}
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// rates is a rate limit for each of many machines.
type rates map[MAC]*bucket

// take is bucket.take for one machine. When too many are watched, those that were
// longest not heard of are forgotten.
func (r rates) take(mac MAC, now time.Time, burst, perSecond float64) bool {
	b := r[mac]
	if b == nil {
		if len(r) >= maxRates {
			var oldest MAC
			for m, b := range r {
				if r[oldest] == nil || b.at.Before(r[oldest].at) {
					oldest = m
				}
			}
			delete(r, oldest)
		}
		b = new(bucket)
		r[mac] = b
	}
	return b.take(now, burst, perSecond)
}
