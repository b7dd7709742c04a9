package cluster

import (
	"context"
	"errors"
	"testing"
)

func TestPublished(t *testing.T) {
	p := newPublished(1)
	v, changed := p.Get()
	if v != 1 || p.Load() != 1 {
		t.Errorf("it is %d", v)
	}
	select {
	case <-changed:
		t.Error("nothing changed")
	default:
	}
	p.set(2)
	<-changed
	if v, err := p.Wait(t.Context(), func(v int) bool { return v == 2 }); v != 2 || err != nil {
		t.Errorf("%d, %v", v, err)
	}
	got := make(chan int, 1)
	go func() {
		v, _ := p.Wait(t.Context(), func(v int) bool { return v > 99 })
		got <- v
	}()
	for i := range 101 {
		p.set(i)
	}
	if v := <-got; v <= 99 {
		t.Errorf("Wait returned %d", v)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	for _, ok := range []bool{true, false} { // also when the value would do
		if _, err := p.Wait(ctx, func(int) bool { return ok }); err == nil || err.Error() != "enough" {
			t.Errorf("Wait under an ended context: %v", err)
		}
	}
}
