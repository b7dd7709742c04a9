package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

func TestStats(t *testing.T) {
	var list []float64
	for i := 200; i > 0; i-- {
		list = append(list, float64(i))
	}
	if s := statsOf(ms, list); s != (Stats{N: 200, Median: 100.5, Worst: 198, Best: 1}) {
		t.Errorf("times: %+v", s)
	}
	if s := statsOf(perSec, list); s != (Stats{N: 200, Median: 100.5, Worst: 3, Best: 200}) {
		t.Errorf("rates: %+v", s)
	}
	if s := statsOf(ms, []float64{3, 1, 2}); s != (Stats{N: 3, Median: 2, Worst: 3, Best: 1}) {
		t.Errorf("three: %+v", s)
	}
	if s := statsOf(ms, nil); s != (Stats{}) {
		t.Errorf("none: %+v", s)
	}
	if list[0] != 200 {
		t.Error("the samples were sorted in place")
	}
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		r    Result
		want string
	}{
		{Result{Unit: ms, Stats: Stats{Median: 5}}, verdictNone},
		{Result{Unit: ms, Stats: Stats{Median: 5}, Budgets: []Budget{{Limit: 5}}}, verdictOK},
		{Result{Unit: ms, Stats: Stats{Median: 5.1}, Budgets: []Budget{{Limit: 5}}}, verdictOver},
		{Result{Unit: ms, Stats: Stats{Median: 1, Worst: 9}, Budgets: []Budget{{Limit: 5}, {Limit: 8, Worst: true}}}, verdictOver},
		{Result{Unit: perSec, Stats: Stats{Median: 5}, Budgets: []Budget{{Limit: 5}}}, verdictOK},
		{Result{Unit: perSec, Stats: Stats{Median: 4}, Budgets: []Budget{{Limit: 5}}}, verdictOver},
		{Result{Unit: count, Budgets: []Budget{{Limit: 0}}}, verdictOK},
		{Result{Unit: ns, Stats: Stats{Median: 14}, Budgets: []Budget{{Limit: 1.4, Times: true}}, Peers: []Peer{{Stats: Stats{N: 1, Median: 10}}}}, verdictOK},
		{Result{Unit: ns, Stats: Stats{Median: 14.1}, Budgets: []Budget{{Limit: 1.4, Times: true}}, Peers: []Peer{{Stats: Stats{N: 1, Median: 10}}}}, verdictOver},
		{Result{Unit: ns, Stats: Stats{Median: 1}, Budgets: []Budget{{Limit: 1.4, Times: true}}, Peers: []Peer{{Error: "x"}}}, verdictNone},
		{Result{Unit: ms, Error: "x", Budgets: []Budget{{Limit: 5}}}, verdictFailed},
	} {
		if got := c.r.verdict(); got != c.want {
			t.Errorf("%+v: %s, want %s", c.r, got, c.want)
		}
	}
}

func TestRatio(t *testing.T) {
	for _, c := range []struct {
		unit       string
		ours, peer float64
		want       string
	}{
		{ms, 2, 9, "4.5x better"},
		{ms, 9, 2, "4.5x worse"},
		{perSec, 2, 9, "4.5x worse"},
		{mbPerSec, 9, 2, "4.5x better"},
		{ms, 2, 2, "1x better"},
		{ms, 0, 2, ""},
		{ms, 2, 0, ""},
	} {
		r := Result{Unit: c.unit, Stats: Stats{Median: c.ours}}
		if got := r.ratio(&Peer{Stats: Stats{Median: c.peer}}); got != c.want {
			t.Errorf("%s, %g beside %g: %q, want %q", c.unit, c.ours, c.peer, got, c.want)
		}
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.5: "0.5", 0.0314: "0.031", 1: "1", 3.456: "3.46", 12.34: "12.3", 99.97: "100", 1234.5: "1234", 5000: "5000", 9.997: "10",
	} {
		if got := number(v); got != want {
			t.Errorf("%g: %q, want %q", v, got, want)
		}
	}
}

func TestWindows(t *testing.T) {
	when := []time.Duration{0, window / 2, window, window + 1, 2*window + 1, 3*window + 1}
	amounts := []float64{100, 100, 1, 1, 5, 100}
	got := windows(when, amounts, 3*window+window/2, window)
	if per := 1 / window.Seconds(); len(got) != 2 || got[0] != 2*per || got[1] != 5*per {
		t.Errorf("%v: want the second and third window, without the first and the begun one", got)
	}
	if got := windows(nil, nil, window/2, window); len(got) != 0 {
		t.Errorf("no whole window: %v", got)
	}
	for _, c := range []struct {
		calls       int
		total, want time.Duration
	}{{1000, time.Second, window}, {20, time.Second, 2 * window}, {3, time.Second, time.Second}, {0, time.Second, time.Second}, {5, 0, 0}} {
		if got := windowFor(c.calls, c.total); got != c.want {
			t.Errorf("%d calls in %v: windows of %v, want %v", c.calls, c.total, got, c.want)
		}
	}
}

func TestHammer(t *testing.T) {
	calls := make([]int, 3) // by caller
	s, err := hammer(t.Context(), load{Parallel: 3, For: time.Hour, Max: 5}, func(_ context.Context, i int) error {
		calls[i]++
		return nil
	})
	if err != nil || len(s.Durations) != 15 || calls[0] != 5 || calls[1] != 5 || calls[2] != 5 {
		t.Errorf("%d calls, %v: %v", len(s.Durations), calls, err)
	}
	broken := errors.New("broken")
	_, err = hammer(t.Context(), load{Parallel: 3, For: time.Hour}, func(_ context.Context, i int) error {
		if i == 1 {
			return broken
		}
		return nil
	})
	if !errors.Is(err, broken) {
		t.Errorf("an error of one caller: %v", err)
	}
	if _, err := hammer(t.Context(), load{Parallel: 1}, func(context.Context, int) error { return nil }); err == nil {
		t.Error("no time and no error")
	}
}

// One writer gets through, the others do not keep the rest waiting.
func TestFirstWrite(t *testing.T) {
	tries := 0
	hang := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	third := func(context.Context) error {
		if tries++; tries < 3 {
			return errors.New("not yet")
		}
		return nil
	}
	if err := firstWrite(t.Context(), []writer{hang, third}); err != nil || tries != 3 {
		t.Errorf("%d tries: %v", tries, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := firstWrite(ctx, []writer{hang}); err == nil {
		t.Error("cancelled, and no error")
	}
}

func TestProto(t *testing.T) {
	header := protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.VarintType), 77)
	msg := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), header)
	msg = protowire.AppendFixed64(protowire.AppendTag(msg, 9, protowire.Fixed64Type), 5)
	msg = protowire.AppendVarint(protowire.AppendTag(msg, 4, protowire.VarintType), 99)
	h, ok := protoBytes(msg, 1)
	if !ok || protoNumber(h, 2) != 77 || protoNumber(msg, 4) != 99 || protoNumber(msg, 3) != 0 {
		t.Errorf("header %x %t, leader %d", h, ok, protoNumber(msg, 4))
	}
	for i := range msg { // a damaged message is a short one
		_ = protoNumber(msg[:i], 4)
	}
}
