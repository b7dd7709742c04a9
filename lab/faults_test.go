package lab

import (
	"math"
	"slices"
	"testing"
	"time"

	"ssi/internal/id"
)

func TestFaultTable(t *testing.T) {
	f := newFaults()
	for _, p := range []faultParams{
		{Set: setCut, A: 1, B: 2},
		{Set: setDelay, A: 1, B: 3, Delay: 5},
		{Set: setDelay, A: 3, Delay: 7},
		{Set: setLoss, A: 3, B: 1, OneWay: true, Loss: 0.5},
		{Set: setLoss, A: 3, Loss: 0.5},
	} {
		if err := f.change(p); err != nil {
			t.Fatal(err)
		}
	}
	want := []Fault{
		{From: 1, To: 2, Cut: true}, {From: 1, To: 3, Delay: 5},
		{From: 2, To: 1, Cut: true},
		{From: 3, To: 0, Delay: 7, Loss: 0.5}, {From: 3, To: 1, Delay: 5, Loss: 0.5},
	}
	if got := f.list(); !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	// At node 3: its own rule for all, and that of 1 on top.
	p := f.plan(3)
	if got := p.toward(1); got != (rule{delay: 12, loss: 0.5}) {
		t.Errorf("from 1 to 3: %+v", got)
	}
	if got := p.toward(2); got != (rule{delay: 7, loss: 0.5}) || p.out != got {
		t.Errorf("from 2 to 3: %+v", got)
	}
	if got := f.plan(1).toward(3); got != (rule{delay: 5, loss: 0.5}) {
		t.Errorf("from 3 to 1: %+v", got)
	}
	if got := f.plan(1).toward(2); !got.cut || f.plan(1).out.cut {
		t.Errorf("from 2 to 1: %+v", got)
	}
	if f.plan(4) != nil {
		t.Error("a node without faults has a plan")
	}
	if r := (rule{loss: 0.5}).and(rule{loss: 0.5}); math.Abs(r.loss-0.75) > 1e-9 {
		t.Errorf("half of half: %v", r.loss)
	}
	// Setting to zero and healing remove the entries.
	for _, p := range []faultParams{{Set: setDelay, A: 1, B: 3}, {Set: healAll, A: 1, B: 2}, {Set: healAll, A: 3}} {
		if err := f.change(p); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.list(); len(got) != 0 {
		t.Errorf("left over: %+v", got)
	}
	for _, p := range []faultParams{
		{Set: setCut, A: 1}, {Set: setCut, B: 1}, {Set: setCut, A: 1, B: 1}, {Set: setDelay, A: 1, Delay: -1},
		{Set: setDelay, A: 1, Delay: maxDelay + 1}, {Set: setLoss, A: 1, Loss: math.NaN()}, {Set: setLoss, A: 1, Loss: 1.01},
		{Set: "x", A: 1}, {Set: setDelay}, {Set: setDelay, A: 1, OneWay: true},
	} {
		if err := f.change(p); err == nil || len(f.list()) != 0 {
			t.Errorf("%+v was taken", p)
		}
	}
}

func TestDelayLine(t *testing.T) {
	out := make(chan string, 100)
	l := newDelayLine(func(b []byte) { out <- string(b) })
	now := time.Now()
	l.put([]byte("late"), now.Add(40*time.Millisecond))
	l.put([]byte("a"), now.Add(20*time.Millisecond))
	l.put([]byte("b"), now.Add(20*time.Millisecond)) // the same time: in order
	l.put([]byte("first"), now)
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.run()
	}()
	for _, want := range []string{"first", "a", "b", "late"} {
		if got := <-out; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if d := time.Since(now); d < 40*time.Millisecond {
		t.Errorf("all came after %v", d)
	}
	l.put([]byte("held"), time.Now().Add(time.Hour))
	l.close(true)
	<-done
	if got := <-out; got != "held" {
		t.Errorf("flushed %q", got)
	}
	if l.put([]byte("x"), now) {
		t.Error("a closed line takes frames")
	}
	full := newDelayLine(func([]byte) {})
	for range wireFrames {
		if !full.put([]byte("x"), now) {
			t.Fatal("full too early")
		}
	}
	if full.put([]byte("x"), now) {
		t.Error("no limit on frames")
	}
	big := newDelayLine(func([]byte) {})
	frame := make([]byte, frameSize)
	for range wireBytes / frameSize {
		if !big.put(frame, now) {
			t.Fatal("full too early")
		}
	}
	if big.put(frame, now) {
		t.Error("no limit on bytes")
	}
}

func TestNodeOfAddress(t *testing.T) {
	for n := id.Node(1); n.Valid(); n++ {
		if nodeOf(mac(n)) != n {
			t.Errorf("node of %v is %d", mac(n), nodeOf(mac(n)))
		}
	}
	if nodeOf([]byte{1, 2, 3, 4, 5, 6}) != 0 || nodeOf(nil) != 0 {
		t.Error("a foreign address has a node")
	}
}
