package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"ssi/internal/api"
	"ssi/internal/id"
)

const (
	registryWriters = 16
	registryBudget  = 5000 // writes a second
	registryFor     = 8 * time.Second
	valueSize       = 32 // bytes
)

// measureRegistry measures writes by 16 clients of one node, each waiting for its
// answer before the next.
func measureRegistry(ctx context.Context, s *site) ([]Result, error) {
	r := Result{Figure: "registry writes, 16 writers", Unit: perSec, Budgets: []Budget{{Limit: registryBudget}}}
	lone := Result{Figure: "registry write, 1 writer", Unit: us}
	all, err := s.writeRegistry(ctx, 1, registryWriters)
	if err != nil {
		return nil, err
	}
	r.Stats = statsOf(perSec, all.Rates)
	r.Note = fmt.Sprintf("a write of the 16 took %s ms in the median", number(statsOf(ms, durations(ms, all.Durations)).Median))
	one, err := s.writeRegistry(ctx, 1, 1)
	if err != nil {
		return nil, err
	}
	lone.Stats = statsOf(us, durations(us, one.Durations))
	many, single := Peer{Name: "etcd, 16 clients"}, Peer{Name: "etcd, 1 client"}
	all, one, err = writeEtcd(ctx)
	if err == nil {
		many.Stats, single.Stats = statsOf(perSec, all.Rates), statsOf(us, durations(us, one.Durations))
	} else {
		many.Error, single.Error = err.Error(), err.Error()
	}
	r.Peers, lone.Peers = []Peer{many}, []Peer{single}
	return []Result{r, lone}, nil
}

// writeRegistry writes through the local socket of a node, a connection a writer.
func (s *site) writeRegistry(ctx context.Context, n id.Node, writers int) (samples, error) {
	clients := make([]*api.Client, writers)
	for i := range clients {
		c, err := s.dial(ctx, n)
		if err != nil {
			return samples{}, err
		}
		defer c.Close()
		clients[i] = c
	}
	value := make([]byte, valueSize)
	return hammer(ctx, load{Parallel: writers, For: registryFor}, func(ctx context.Context, i int) error {
		p := api.RegistryPutParams{Key: fmt.Sprintf("/bench/%d", i), Value: value}
		return clients[i].Call(ctx, api.MethodRegistryPut, p, nil)
	})
}

// writeEtcd does the same with etcd: as many clients of one member, each with a
// connection of its own, over gRPC.
func writeEtcd(ctx context.Context) (many, one samples, err error) {
	e, err := startEtcd(ctx)
	if err != nil {
		return many, one, err
	}
	defer e.close()
	var conns []*grpc.ClientConn
	for range registryWriters {
		c, err := grpc.NewClient(e.members[0].conn.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return many, one, err
		}
		defer c.Close()
		conns = append(conns, c)
	}
	value := string(make([]byte, valueSize))
	put := func(ctx context.Context, i int) error { return putOn(ctx, conns[i], fmt.Sprintf("bench/%d", i), value) }
	if many, err = hammer(ctx, load{Parallel: registryWriters, For: registryFor}, put); err != nil {
		return many, one, err
	}
	one, err = hammer(ctx, load{Parallel: 1, For: registryFor}, put)
	return many, one, err
}
