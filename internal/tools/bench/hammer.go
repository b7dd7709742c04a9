package main

import (
	"context"
	"errors"
	"sync"
	"time"
)

// window is the length of a sample of a rate; of one that is so low that a window
// holds less than perWindow calls, it is longer.
const (
	window    = 250 * time.Millisecond
	perWindow = 10
)

// samples is what a load found.
type samples struct {
	Durations []time.Duration `json:"durations_ns"` // of each call
	Rates     []float64       `json:"rates"`        // per second, of each whole window but the first

	// What other jobs found: PIDs of processes, how many processes there are or
	// were, and how many had a PID that is not of the node's window.
	PIDs    []int `json:"pids,omitempty"`
	Count   int   `json:"count,omitempty"`
	Outside int   `json:"outside,omitempty"`
}

// load is how long and how often something is called: until For has passed or
// each caller made Max calls.
type load struct {
	Parallel int           `json:"parallel"` // callers
	For      time.Duration `json:"for_ns"`
	Max      int           `json:"max,omitempty"` // calls of one caller; 0: no limit
}

// hammer calls f as l says, f(i) only by caller i, and stops at the first error.
func hammer(ctx context.Context, l load, f func(ctx context.Context, caller int) error) (samples, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	start := time.Now()
	perCaller := make([][]time.Duration, l.Parallel)
	ends := make([][]time.Duration, l.Parallel)
	var wg sync.WaitGroup
	for i := range l.Parallel {
		wg.Go(func() {
			for n := 0; (l.Max == 0 || n < l.Max) && ctx.Err() == nil; n++ {
				began := time.Now()
				if began.Sub(start) >= l.For {
					return
				}
				if err := f(ctx, i); err != nil {
					cancel(err)
					return
				}
				end := time.Now()
				perCaller[i] = append(perCaller[i], end.Sub(began))
				ends[i] = append(ends[i], end.Sub(start))
			}
		})
	}
	wg.Wait()
	var s samples
	var all []time.Duration
	for i := range l.Parallel {
		s.Durations = append(s.Durations, perCaller[i]...)
		all = append(all, ends[i]...)
	}
	amounts := make([]float64, len(all))
	for i := range amounts {
		amounts[i] = 1
	}
	total := min(l.For, time.Since(start))
	s.Rates = windows(all, amounts, total, windowFor(len(all), total))
	if err := context.Cause(ctx); err != nil {
		return s, err
	}
	if len(s.Durations) == 0 {
		return s, errors.New("not one call ended in time")
	}
	return s, nil
}

// windowFor is how long a window must be for calls in total, at most total.
func windowFor(calls int, total time.Duration) time.Duration {
	w := window
	for w < total && float64(calls)*float64(w)/float64(total) < perWindow {
		w *= 2
	}
	return min(w, total)
}

// windows adds up amounts by when they came and gives their rate per second in
// each whole window of this width, without the first, in which things warm up.
func windows(when []time.Duration, amounts []float64, total, width time.Duration) []float64 {
	if width <= 0 {
		return nil
	}
	sums := make([]float64, int(total/width))
	for i, t := range when {
		if w := int(t / width); w < len(sums) {
			sums[w] += amounts[i]
		}
	}
	for i := range sums {
		sums[i] /= width.Seconds()
	}
	if len(sums) > 1 {
		sums = sums[1:]
	}
	return sums
}

// stream counts bytes as they come or go.
type stream struct {
	start   time.Time
	when    []time.Duration
	amounts []float64
}

func newStream() *stream { return &stream{start: time.Now()} }

func (s *stream) add(n int) {
	s.when = append(s.when, time.Since(s.start))
	s.amounts = append(s.amounts, float64(n)/1e6)
}

func (s *stream) elapsed() time.Duration { return time.Since(s.start) }

// rates is MB/s of each window.
func (s *stream) rates() []float64 { return windows(s.when, s.amounts, s.elapsed(), window) }
