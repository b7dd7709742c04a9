package cluster

import (
	"context"
	"sync"
	"time"

	"ssi/cluster/clusterpb"
	"ssi/internal/id"
)

// probeService is the gRPC service that works before a node is a member.
const probeService = "/ssi.cluster.Probe/"

// probeTimeout bounds a question about the clock.
const probeTimeout = time.Second

type probeServer struct {
	clusterpb.UnimplementedProbeServer
}

func (probeServer) Clock(context.Context, *clusterpb.ClockRequest) (*clusterpb.ClockReply, error) {
	return &clusterpb.ClockReply{Wall: time.Now().UnixNano()}, nil
}

func (c *Cluster) registerProbe() {
	clusterpb.RegisterProbeServer(c.transport.GRPC(), probeServer{})
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
			reply, err := clusterpb.NewProbeClient(c.transport.Peer(n.Node)).Clock(ctx, &clusterpb.ClockRequest{})
			if err != nil {
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
