package cluster

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"ssi/internal/id"
)

// InitWork runs on the node that holds init, and on another when that one is gone.
func TestInitWork(t *testing.T) {
	t.Parallel()
	works := make([]atomic.Int32, 4)
	begun := make(chan id.Node, 4)
	machines := clusterOf(t, 3, func(m *machine) {
		before := m.change
		m.change = func(c *Config) {
			if before != nil {
				before(c)
			}
			ident, err := ReadIdentity(c.Dir)
			if err != nil {
				t.Error(err)
				return
			}
			c.InitWork = []func(context.Context){func(ctx context.Context) {
				works[ident.Node].Add(1)
				begun <- ident.Node
				<-ctx.Done()
				works[ident.Node].Add(-1)
			}}
		}
	})
	next := func() id.Node {
		select {
		case n := <-begun:
			return n
		case <-time.After(patience):
			t.Fatal("no node works as init")
			return 0
		}
	}
	first := next()
	holder := func(n id.Node) *machine {
		for _, m := range machines {
			if m.c.Self() == n {
				return m
			}
		}
		t.Fatalf("there is no node %d", n)
		return nil
	}
	if holds := holder(first).c.Status().Load().Init; !holds.Held {
		t.Errorf("node %d works as init and does not hold it", first)
	}
	holder(first).halt()
	if n := works[first].Load(); n != 0 {
		t.Errorf("%d works of node %d have not ended with it", n, first)
	}
	if second := next(); second == first {
		t.Errorf("node %d works as init after its end", second)
	}
}
