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

const (
	clockMethod   = probeService + "Clock"
	machineMethod = probeService + "Machine"
)

// probeTimeout bounds a question to all nodes.
const probeTimeout = time.Second

func serveClock(context.Context, *clusterpb.ClockRequest) (*clusterpb.ClockReply, error) {
	return &clusterpb.ClockReply{Wall: time.Now().UnixNano()}, nil
}

func (c *Cluster) serveMachine(context.Context, *clusterpb.MachineRequest) (*clusterpb.MachineReply, error) {
	if c.cfg.Machine == nil {
		return &clusterpb.MachineReply{}, nil
	}
	return &clusterpb.MachineReply{Report: c.cfg.Machine()}, nil
}

func (c *Cluster) registerProbe() {
	c.transport.Handle(clockMethod, ics.Unary(serveClock))
	c.transport.Handle(machineMethod, ics.Unary(c.serveMachine))
}

// ClockOffsets asks the living nodes for their wall clock and returns by how much
// each is ahead of this node's. Nodes that do not answer are left out. The error
// of a figure is at most half the time the call took.
func (c *Cluster) ClockOffsets(ctx context.Context) map[id.Node]time.Duration {
	return askAll(ctx, c, 0, func(ctx context.Context, n id.Node) (time.Duration, error) {
		start := time.Now()
		var reply clusterpb.ClockReply
		if err := c.transport.Call(ctx, n, clockMethod, &clusterpb.ClockRequest{}, &reply); err != nil {
			return 0, err
		}
		rtt := time.Since(start)
		return time.Unix(0, reply.Wall).Sub(start.Add(rtt / 2)), nil
	})
}

// Machines asks the living nodes what they tell of their machines: what
// Config.Machine gave there, at most ics.MaxCall bytes each. Nodes that do not
// answer are left out.
func (c *Cluster) Machines(ctx context.Context) map[id.Node][]byte {
	var own []byte
	if c.cfg.Machine != nil {
		own = c.cfg.Machine()
	}
	return askAll(ctx, c, own, func(ctx context.Context, n id.Node) ([]byte, error) {
		var reply clusterpb.MachineReply
		err := c.transport.Call(ctx, n, machineMethod, &clusterpb.MachineRequest{}, &reply)
		return reply.Report, err
	})
}

// askAll is the answers of the living nodes that give one within probeTimeout; own
// is that of this node.
func askAll[T any](ctx context.Context, c *Cluster, own T, ask func(context.Context, id.Node) (T, error)) map[id.Node]T {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var mu sync.Mutex
	answers := map[id.Node]T{c.self: own}
	var wg sync.WaitGroup
	for _, n := range c.members.Load().Nodes {
		if n.Node == c.self || !n.State.Alive() || n.Info.Witness {
			continue
		}
		wg.Go(func() {
			if answer, err := ask(ctx, n.Node); err == nil {
				mu.Lock()
				defer mu.Unlock()
				answers[n.Node] = answer
			}
		})
	}
	wg.Wait()
	return answers
}
