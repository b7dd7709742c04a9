package netboot

import (
	"context"
	"errors"
	"testing"
)

// What a term asked for goes on when the term ends, and serves the next one.
func TestBuildOutlivesTerm(t *testing.T) {
	began, finish := make(chan string, 8), make(chan error, 8)
	b := newBuilds(func(ctx context.Context, class string) error {
		began <- class
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-finish:
			return err
		}
	})
	run, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); b.run(run) }()
	defer func() { stop(); <-ended }()

	term, end := context.WithCancelCause(t.Context())
	asked := make(chan error, 1)
	go func() { asked <- b.ask(term, "") }()
	<-began
	lost := errors.New("init is lost")
	end(lost)
	if err := <-asked; !errors.Is(err, lost) {
		t.Errorf("the term ended: %v", err)
	}
	go func() { asked <- b.ask(t.Context(), "") }()
	go func() { asked <- b.ask(t.Context(), "vm") }()
	finish <- nil
	if err := <-asked; err != nil {
		t.Errorf("the next term: %v", err)
	}
	if class := <-began; class != "vm" {
		t.Errorf("made again: %q", class)
	}
	no := errors.New("no such modules")
	finish <- no
	if err := <-asked; !errors.Is(err, no) {
		t.Errorf("a class that cannot be made: %v", err)
	}
	if err := b.ask(t.Context(), ""); err != nil || len(began) > 0 {
		t.Errorf("asked again at once: %v", err)
	}
	b.forget()
	finish <- no
	if err := b.ask(t.Context(), ""); !errors.Is(err, no) || <-began != "" {
		t.Errorf("after it was forgotten: %v", err)
	}
}

func TestManyBuilds(t *testing.T) {
	b := newBuilds(func(context.Context, string) error { return nil }) // nobody makes any
	done, cancel := context.WithCancel(t.Context())
	cancel()
	for i := range maxBuilds {
		if err := b.ask(done, string(rune('a'+i))); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if err := b.ask(done, "a"); !errors.Is(err, context.Canceled) { // it is in the queue
		t.Error(err)
	}
	if err := b.ask(done, "zz"); !errors.Is(err, errManyBuilds) {
		t.Error(err)
	}
}
