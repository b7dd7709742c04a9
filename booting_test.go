package main

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestCalm: it is calm once no node has come or gone for a while, and what waits for
// that does not wait for ever.
func TestCalm(t *testing.T) {
	for name, c := range map[string]struct {
		changes int
		every   time.Duration
		want    time.Duration
	}{
		"nothing happens":   {0, time.Second, calmTime},
		"some nodes join":   {3, 2 * time.Second, 6*time.Second + calmTime},
		"a node that flaps": {1000, time.Second, stormTime},
		"slowly":            {1000, calmTime + time.Second, calmTime},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				left := c.changes
				calm(t.Context(), func() <-chan struct{} {
					next := make(chan struct{})
					if left > 0 {
						left--
						time.AfterFunc(c.every, func() { close(next) })
					}
					return next
				})
				if took := time.Since(began); took != c.want {
					t.Errorf("calm after %v, want %v", took, c.want)
				}
			})
		})
	}
	ended, end := context.WithCancel(t.Context())
	end()
	calm(ended, func() <-chan struct{} { return nil })
}
