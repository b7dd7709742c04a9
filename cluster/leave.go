package cluster

import (
	"context"
	"fmt"

	"ssi/cluster/core"
	"ssi/cluster/registry"
	"ssi/internal/id"
)

// Leave takes this node out of the cluster in order and returns when the others
// know, or with ctx. The node serves no more then; Run goes on until its own
// context ends.
func (c *Cluster) Leave(ctx context.Context, cause string) error {
	c.leaving.Store(true)
	if err := c.run(ctx, func() { c.core.Leave(cause) }); err != nil {
		return fmt.Errorf("leave the cluster: %w", err)
	}
	if _, err := c.status.Wait(ctx, func(s core.Status) bool { return s.Left }); err != nil {
		return fmt.Errorf("leave the cluster: the others did not confirm in time: %w; they will notice by themselves", err)
	}
	return nil
}

// Leaving reports whether Leave was called.
func (c *Cluster) Leaving() bool { return c.leaving.Load() }

// Order notes in the registry what a node is to do with itself; nil takes it back.
func (c *Cluster) Order(ctx context.Context, n id.Node, what []byte) error {
	op := registry.DeleteOp(OrderKey(n))
	if what != nil {
		op = registry.PutOp(OrderKey(n), what, 0)
	}
	_, err := c.Registry().Txn(ctx, true, nil, op)
	return err
}
