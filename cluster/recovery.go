package cluster

import (
	"context"
	"fmt"
	"path/filepath"

	"ssi/cluster/core"
	"ssi/cluster/raftlog"
	"ssi/cluster/registry"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// Force makes this node the only voter, for the case that the operator knows
// that the voters that do not answer are off. It refuses while the cluster can
// decide. Run ends with ErrRestart then.
func (c *Cluster) Force(ctx context.Context, cause string) (recovery uint64, lost []id.Node, err error) {
	if rerr := c.run(ctx, func() { recovery, lost, err = c.force() }); rerr != nil {
		err = rerr
	}
	if err != nil {
		return 0, nil, fmt.Errorf("force: %w", err)
	}
	c.log.Warn("this node was made the only voter", "cause", cause, "lost", lost, "recovery", recovery)
	return recovery, lost, nil
}

// force is Force in the loop.
func (c *Cluster) force() (recovery uint64, lost []id.Node, err error) {
	status := c.core.Status()
	switch {
	case !status.Voter || c.disk == nil:
		return 0, nil, errno.New(errno.Invalid, "", c.self, "this node keeps no copy of the cluster's state; force one of the voters: %v", status.Voters)
	case status.Leader != 0:
		return 0, nil, errno.New(errno.Invalid, "", c.self, "the cluster can decide (node %d leads it); nothing to force", status.Leader)
	}
	for _, n := range status.Voters {
		if n != c.self {
			lost = append(lost, n)
		}
	}
	c.stop = ErrRestart // whatever comes of it, this process has no log any more
	ident, storage := c.disk.Identity(), c.disk.Storage()
	if err := c.releaseDisk(); err != nil {
		return 0, nil, err
	}
	recovery = core.NextRecovery(ident.Recovery, c.self)
	err = raftlog.Replace(filepath.Join(c.cfg.Dir, dirRaft), recovery, func(st raftlog.State) (raftlog.State, error) {
		forced, err := core.Force(c.self, ident.RaftID, ident.Recovery, storage, registry.NewStore())
		if err != nil {
			return st, err
		}
		return raftlog.State{HardState: forced.HardState, Snapshot: forced.Snapshot}, nil
	}, c.log)
	return recovery, lost, err
}

// Rejoin puts this node's copy of the cluster's state aside, so that it starts
// empty under its number. It refuses when that copy may be needed. Run ends with
// ErrRestart then. aside is where the copy lies now, "" if there was none.
func (c *Cluster) Rejoin(ctx context.Context) (aside string, err error) {
	if rerr := c.run(ctx, func() { aside, err = c.rejoin() }); rerr != nil {
		err = rerr
	}
	if err != nil {
		return "", fmt.Errorf("rejoin: %w", err)
	}
	return aside, nil
}

// rejoin is Rejoin in the loop.
func (c *Cluster) rejoin() (aside string, err error) {
	status := c.core.Status()
	switch {
	case status.Voter && len(status.Voters) < 2:
		return "", errno.New(errno.Invalid, "", c.self, "this node holds the only copy of the cluster's state")
	case status.Voter && status.Leader == 0:
		return "", errno.New(errno.Invalid, "", c.self, "the cluster cannot decide at the moment, and may need this node's copy of its state to do so again; bring the other voters back first: %v", status.Voters)
	}
	c.stop = ErrRestart
	if c.disk != nil {
		if err := c.releaseDisk(); err != nil {
			return "", err
		}
	}
	return PutAside(c.cfg.Dir)
}

// releaseDisk closes the log in order to do something else with it; the loop
// ends after that.
func (c *Cluster) releaseDisk() error {
	c.compacting.Wait()
	disk := c.disk
	c.disk = nil
	if err := disk.Close(); err != nil {
		return fmt.Errorf("close the cluster's log: %w", err)
	}
	return nil
}
