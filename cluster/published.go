package cluster

import (
	"context"
	"sync"
)

// Published is a value that one goroutine sets and any may read or wait for.
type Published[T any] struct {
	mu      sync.Mutex
	value   T
	changed chan struct{} // closed by the next set
}

func newPublished[T any](v T) *Published[T] {
	return &Published[T]{value: v, changed: make(chan struct{})}
}

// Get returns the value and a channel that is closed when there is a newer one.
func (p *Published[T]) Get() (T, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.value, p.changed
}

// Load returns the value.
func (p *Published[T]) Load() T {
	v, _ := p.Get()
	return v
}

func (p *Published[T]) set(v T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.value = v
	close(p.changed)
	p.changed = make(chan struct{})
}

// Wait returns the first value, from now on, for which ok holds. It may miss
// values between two others. The error is the cause of ctx.
func (p *Published[T]) Wait(ctx context.Context, ok func(T) bool) (T, error) {
	for {
		v, changed := p.Get()
		if ctx.Err() != nil {
			return v, context.Cause(ctx)
		}
		if ok(v) {
			return v, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return v, context.Cause(ctx)
		}
	}
}
