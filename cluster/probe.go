package cluster

import (
	"context"
	"sync"
	"time"

	"ssi/cluster/clusterpb"
	"ssi/cluster/ics"
	"ssi/internal/id"
)

// probeService is the calls that work before a node is a member.
const probeService = "ssi.cluster.Probe/"

const clockMethod = probeService + "Clock"

// probeTimeout bounds a question about the clock.
const probeTimeout = time.Second

func serveClock(context.Context, *clusterpb.ClockRequest) (*clusterpb.ClockReply, error) {
	return &clusterpb.ClockReply{Wall: time.Now().UnixNano()}, nil
}

func (c *Cluster) registerProbe() {
	c.transport.Handle(clockMethod, ics.Unary(serveClock))
}

// ClockOffsets asks the living nodes for their wall clock and returns by how much
// each is ahead of this node's. Nodes that do not answer are left out. The error
// of a figure is at most half the time the call took.
func (c *Cluster) ClockOffsets(ctx context.Context) map[id.Node]time.Duration {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var mu sync.Mutex
	offsets := map[id.Node]time.Duration{c.self: 0}
	var wg sync.WaitGroup
	for _, n := range c.members.Load().Nodes {
		if n.Node == c.self || !n.State.Alive() || n.Info.Witness {
			continue
		}
		wg.Go(func() {
			start := time.Now()
			var reply clusterpb.ClockReply
			if err := c.transport.Call(ctx, n.Node, clockMethod, &clusterpb.ClockRequest{}, &reply); err != nil {
				return
			}
			rtt := time.Since(start)
			mu.Lock()
			defer mu.Unlock()
			offsets[n.Node] = time.Unix(0, reply.Wall).Sub(start.Add(rtt / 2))
		})
	}
	wg.Wait()
	return offsets
}
