package test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/lincheck"
)

// TestLinearizable lets clients on all nodes read and write few keys while nodes
// crash, are cut off, pause, and lose their daemons; the history of what they were
// told must be linearizable.
func TestLinearizable(t *testing.T) {
	c := start(t, 3)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d (the schedule of faults; the nodes' own timing is not replayed)", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	rounds := 12
	if testing.Short() {
		rounds = 4
	}

	rec := lincheck.NewRecorder()
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer stop()
	for i := range 6 {
		clients.Go(func() { client(ctx, c, rec, i, rand.New(rand.NewPCG(seed, uint64(i+1)))) })
	}
	for range rounds {
		n := id.Node(rng.IntN(3) + 1)
		a, b := n%3+1, (n+1)%3+1
		switch rng.IntN(4) {
		case 0:
			c.ok(c.Crash(c.ctx(), n))
			c.state(a, n, api.Down)
			c.ok(c.StartNode(c.ctx(), n))
		case 1:
			oneWay := rng.IntN(2) == 0
			c.ok(c.Cut(c.ctx(), n, a, oneWay))
			c.ok(c.Cut(c.ctx(), n, b, oneWay))
			c.state(a, n, api.Down)
			c.ok(c.Heal(c.ctx(), 0, 0))
		case 2:
			c.ok(c.Pause(c.ctx(), n))
			c.state(a, n, api.Down)
			c.ok(c.Resume(c.ctx(), n))
		case 3:
			_, _ = c.try(n, "pkill", "-9", "-xf", "ssi node")
		}
		c.await(a, "everyone UP", func(s *api.ClusterStatus) bool {
			for _, node := range s.Nodes {
				if node.State != api.Up {
					return false
				}
			}
			return true
		})
	}
	stop()
	clients.Wait()
	checkLinearizable(t, rec)
	checkHistories(c, 1, 2, 3)
}

// client does one operation after the other at node i%3+1.
func client(ctx context.Context, c *cluster, rec *lincheck.Recorder, i int, rng *rand.Rand) {
	n := id.Node(i%3 + 1)
	var conn *api.Client
	defer func() {
		if conn != nil {
			_ = conn.Close()
		}
	}()
	known := map[string]uint64{}
	for count := 0; ctx.Err() == nil; count++ {
		if conn == nil {
			var err error
			if conn, err = c.Dial(ctx, n); err != nil {
				select { // the node is off
				case <-ctx.Done():
				case <-time.After(50 * time.Millisecond):
				}
				continue
			}
		}
		key := fmt.Sprintf("/lin/%d", rng.IntN(4))
		value := fmt.Sprintf("%d-%d", i, count)
		if !operate(ctx, conn, rec, i, rng.IntN(3), key, value, known) {
			_ = conn.Close()
			conn = nil
		}
	}
}

// operate does one operation and notes what came of it; false means that the
// connection is of no more use.
func operate(ctx context.Context, conn *api.Client, rec *lincheck.Recorder, i, what int, key, value string, known map[string]uint64) bool {
	// The call ends by itself before this; a client that was cut short must not
	// take the late answer for that of its next call.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	var err error
	var call *lincheck.Call
	switch what {
	case 0:
		call = rec.Begin(i, lincheck.Op{Kind: lincheck.Get, Key: key})
		var r api.RegistryGetReply
		err = conn.Call(ctx, api.MethodRegistryGet, api.RegistryGetParams{Key: key}, &r)
		if err == nil || errno.Is(err, errno.NotFound) {
			known[key] = r.KV.Mod
			call.Done(lincheck.Result{Revision: r.KV.Mod, Value: string(r.KV.Value)})
			return true
		}
	case 1:
		call = rec.Begin(i, lincheck.Op{Kind: lincheck.Put, Key: key, Value: value})
		var r api.RegistryWriteReply
		err = conn.Call(ctx, api.MethodRegistryPut, api.RegistryPutParams{Key: key, Value: []byte(value)}, &r)
		if err == nil {
			known[key] = r.Revision
			call.Done(lincheck.Result{Revision: r.Revision})
			return true
		}
	default:
		mod := known[key]
		call = rec.Begin(i, lincheck.Op{Kind: lincheck.CAS, Key: key, Value: value, Revision: mod})
		var r api.RegistryWriteReply
		err = conn.Call(ctx, api.MethodRegistryCAS, api.RegistryCASParams{Key: key, Value: []byte(value), Mod: mod}, &r)
		if err == nil {
			known[key] = r.Revision
			call.Done(lincheck.Result{Revision: r.Revision})
			return true
		}
		if errno.Is(err, errno.Exists) {
			delete(known, key)
			call.Done(lincheck.Result{Failed: true})
			return true
		}
	}
	var e *errno.Error
	if errors.As(err, &e) && e.Kind == errno.NoQuorum {
		call.Failed() // said to be certain
		return true
	}
	call.Unknown()
	return errors.As(err, &e) && e.Kind == errno.Unknown
}

func checkLinearizable(t *testing.T, rec *lincheck.Recorder) {
	t.Helper()
	if err := rec.Check(patience); err != nil {
		t.Error(err)
	}
	t.Logf("%d operations checked", rec.Len())
}
