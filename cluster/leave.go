package cluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"ssi/cluster/core"
	"ssi/cluster/raftlog"
	"ssi/cluster/registry"
	"ssi/internal/errno"
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

// Force makes this node the only voter, for the case that the operator knows
// that the voters that do not answer are off. It refuses while the cluster can
// decide. Afterwards the daemon must start anew.
func (c *Cluster) Force(ctx context.Context, cause string) (recovery uint64, lost []id.Node, err error) {
	fail := func(err error) (uint64, []id.Node, error) { return 0, nil, fmt.Errorf("force: %w", err) }
	status := c.status.Load()
	switch {
	case !status.Voter:
		return fail(errno.New(errno.Invalid, "", c.self, "this node keeps no copy of the cluster's state; force one of the voters: %v", status.Voters))
	case status.Leader != 0:
		return fail(errno.New(errno.Invalid, "", c.self, "the cluster can decide (init is node %d); nothing to force", status.Leader))
	}
	for _, n := range status.Voters {
		if n != c.self {
			lost = append(lost, n)
		}
	}
	if rerr := c.run(ctx, func() {
		recovery, err = c.forceDisk()
		c.stop = ErrRestart
	}); rerr != nil {
		return fail(rerr)
	}
	if err != nil {
		return fail(err)
	}
	c.log.Warn("this node was made the only voter", "cause", cause, "lost", lost, "recovery", recovery)
	return recovery, lost, nil
}

// forceDisk replaces the durable log by one whose only voter is this node, in a
// new recovery generation. The loop ends after it.
func (c *Cluster) forceDisk() (recovery uint64, err error) {
	if c.disk == nil {
		return 0, errors.New("this node has no log")
	}
	ident, storage := c.disk.Identity(), c.disk.Storage()
	dir := filepath.Join(c.cfg.Dir, dirRaft)
	err = c.disk.Close()
	c.disk = nil
	if err != nil {
		return 0, err
	}
	recovery = core.NextRecovery(ident.Recovery, c.self)
	return recovery, raftlog.Replace(dir, recovery, func(st raftlog.State) (raftlog.State, error) {
		forced, err := core.Force(c.self, ident.RaftID, ident.Recovery, storage, registry.NewStore())
		if err != nil {
			return st, err
		}
		return raftlog.State{HardState: forced.HardState, Snapshot: forced.Snapshot}, nil
	}, c.log)
}

// Rejoin puts this node's copy of the cluster's state aside, so that it starts
// empty under its number. It refuses when that copy may be the only one.
// Afterwards the daemon must start anew.
func (c *Cluster) Rejoin(ctx context.Context) (aside string, err error) {
	status := c.status.Load()
	if status.Voter && len(status.Voters) < 2 {
		return "", errno.New(errno.Invalid, "rejoin", c.self, "this node holds the only copy of the cluster's state")
	}
	if rerr := c.run(ctx, func() {
		if c.disk != nil {
			err = c.disk.Close()
			c.disk = nil
		}
		if err == nil {
			aside, err = PutAside(c.cfg.Dir)
		}
		c.stop = ErrRestart
	}); rerr != nil {
		return "", rerr
	}
	return aside, err
}
