package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// Units of figures. What ends in "/s" is better when higher.
const (
	ms       = "ms"
	us       = "µs"
	ns       = "ns"
	seconds  = "s"
	perSec   = "/s"
	mbPerSec = "MB/s"
	mb       = "MB" // 10^6 bytes, as in the promises
	percent  = "%"
	count    = ""
)

// Result is one figure with its budget and those it is compared with.
type Result struct {
	Group   string   `json:"group"`
	Figure  string   `json:"figure"`
	Unit    string   `json:"unit,omitempty"`
	Budgets []Budget `json:"budgets,omitempty"`
	Stats   Stats    `json:"measured"`
	Peers   []Peer   `json:"peers,omitempty"`
	Note    string   `json:"note,omitempty"`
	Error   string   `json:"error,omitempty"` // why there is no figure
}

// Budget is a promise: the median, or the worst 1%, is at most (for rates: at
// least) Limit. Limit is in the unit of the figure, or how many times the median of
// its first peer.
type Budget struct {
	Worst bool    `json:"worst,omitempty"`
	Times bool    `json:"times,omitempty"`
	Limit float64 `json:"limit"`
}

// Peer is the same figure of another program.
type Peer struct {
	Name  string `json:"name"`
	Stats Stats  `json:"measured"`
	Error string `json:"error,omitempty"`
}

// Stats sums up samples. Worst is the 99th percentile, of rates the 1st.
type Stats struct {
	N      int     `json:"n"`
	Median float64 `json:"median"`
	Worst  float64 `json:"worst_percent"`
	Best   float64 `json:"best"`
}

// rate reports whether more is better.
func rate(unit string) bool { return unit == perSec || unit == mbPerSec }

// statsOf sums up samples of a unit, by nearest rank.
func statsOf(unit string, samples []float64) Stats {
	if len(samples) == 0 {
		return Stats{}
	}
	s := slices.Clone(samples)
	slices.Sort(s)
	if rate(unit) {
		slices.Reverse(s)
	}
	rank := func(p float64) float64 { return s[max(0, int(math.Ceil(p*float64(len(s))))-1)] }
	median := rank(0.5)
	if len(s)%2 == 0 {
		median = (s[len(s)/2-1] + s[len(s)/2]) / 2
	}
	return Stats{N: len(s), Median: median, Worst: rank(0.99), Best: s[0]}
}

// durations are samples in unit ms, µs, ns or s.
func durations(unit string, list []time.Duration) []float64 {
	by := map[string]time.Duration{ms: time.Millisecond, us: time.Microsecond, ns: time.Nanosecond, seconds: time.Second}[unit]
	out := make([]float64, len(list))
	for i, d := range list {
		out[i] = float64(d) / float64(by)
	}
	return out
}

// verdicts.
const (
	verdictOK     = "ok"
	verdictOver   = "OVER"
	verdictFailed = "FAILED"
	verdictNone   = "-"
)

// verdict says whether the budgets are met.
func (r *Result) verdict() string {
	switch {
	case r.Error != "":
		return verdictFailed
	case len(r.Budgets) == 0:
		return verdictNone
	}
	for _, b := range r.Budgets {
		v := r.Stats.Median
		if b.Worst {
			v = r.Stats.Worst
		}
		limit := b.Limit
		if b.Times {
			if len(r.Peers) == 0 || r.Peers[0].Stats.N == 0 {
				return verdictNone // there is nothing to compare with
			}
			limit *= r.Peers[0].Stats.Median
		}
		if rate(r.Unit) && v < limit || !rate(r.Unit) && v > limit {
			return verdictOver
		}
	}
	return verdictOK
}

// budget is the budgets in words.
func (r *Result) budget() string {
	text := ""
	for i, b := range r.Budgets {
		if i > 0 {
			text += ", "
		}
		sign := "<= "
		if rate(r.Unit) {
			sign = ">= "
		}
		text += sign + number(b.Limit)
		if b.Times {
			text += "x"
		}
		if b.Worst {
			text += " worst"
		}
	}
	return text
}

// ratio compares with a peer by medians: how much better or worse r is.
func (r *Result) ratio(p *Peer) string {
	a, b := r.Stats.Median, p.Stats.Median
	if a <= 0 || b <= 0 {
		return ""
	}
	if rate(r.Unit) {
		a, b = b, a
	}
	if a <= b {
		return fmt.Sprintf("%sx better", number(b/a))
	}
	return fmt.Sprintf("%sx worse", number(a/b))
}

// number prints three significant digits, and whole numbers from 100 on.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a == 0:
		return "0"
	case a >= 99.95:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 9.995:
		return trimZeros(strconv.FormatFloat(v, 'f', 1, 64))
	case a >= 0.9995:
		return trimZeros(strconv.FormatFloat(v, 'f', 2, 64))
	}
	return trimZeros(strconv.FormatFloat(v, 'f', 3, 64))
}

func trimZeros(s string) string {
	for s[len(s)-1] == '0' {
		s = s[:len(s)-1]
	}
	if s[len(s)-1] == '.' {
		s = s[:len(s)-1]
	}
	return s
}
