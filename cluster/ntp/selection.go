package ntp

import (
	"cmp"
	"slices"
	"time"
)

// candidate is what one server claims: the true offset is within Offset ± Distance.
type candidate struct {
	server   int // its place in the list of servers
	sample   Sample
	distance time.Duration
	jitter   time.Duration
}

// choose returns the candidates to believe, the one with the least distance
// first: the largest group whose intervals have a point in common, if it is more
// than half of all (RFC 5905, section 11.2.1: Marzullo's algorithm). None is
// returned when there is no such group.
func choose(all []candidate) []candidate {
	type edge struct {
		at   time.Duration
		kind int // -1 an interval begins, +1 one ends
	}
	edges := make([]edge, 0, 2*len(all))
	for _, c := range all {
		edges = append(edges,
			edge{c.sample.Offset - c.distance - c.jitter, -1},
			edge{c.sample.Offset + c.distance + c.jitter, +1})
	}
	// At the same point beginnings come first: intervals that touch agree.
	slices.SortFunc(edges, func(a, b edge) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.kind, b.kind))
	})
	open, most := 0, 0
	var from, to time.Duration
	for i, e := range edges {
		open -= e.kind
		if open > most {
			most, from = open, e.at
			to = edges[i+1].at // there is one: the end of an open interval
		}
	}
	if 2*most <= len(all) {
		return nil
	}
	var believed []candidate
	for _, c := range all {
		if c.sample.Offset-c.distance-c.jitter <= to && c.sample.Offset+c.distance+c.jitter >= from {
			believed = append(believed, c)
		}
	}
	slices.SortStableFunc(believed, func(a, b candidate) int { return cmp.Compare(a.distance, b.distance) })
	return believed
}

// combine is the offset that the believed say, weighted by 1/distance (RFC 5905,
// section 11.2.3).
func combine(believed []candidate) time.Duration {
	// Relative to the first, so that large offsets lose no precision.
	base := believed[0].sample.Offset
	sum, weights := 0.0, 0.0
	for _, c := range believed {
		w := 1 / c.distance.Seconds()
		sum += w * (c.sample.Offset - base).Seconds()
		weights += w
	}
	return base + seconds(sum/weights)
}
