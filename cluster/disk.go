package cluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"go.etcd.io/raft/v3"
	"golang.org/x/sys/unix"

	"ssi/cluster/core"
	"ssi/cluster/raftlog"
)

// fullPause is how often a write to a full disk is tried again.
const fullPause = 250 * time.Millisecond

// save writes what must be on disk before anything follows from it.
func (c *Cluster) save(ctx context.Context, out *core.Output) error {
	if c.disk == nil || out.HardState == nil && len(out.Entries) == 0 && out.Snapshot == nil {
		return nil
	}
	return c.patiently(ctx, "write the cluster's log", func() error {
		return c.disk.Save(out.HardState, out.Entries, out.Snapshot, out.MustSync)
	})
}

// createDisk makes the log of a node that is to become a voter.
func (c *Cluster) createDisk(ctx context.Context, r *core.NewRaft) error {
	dir, ident := filepath.Join(c.cfg.Dir, dirRaft), c.diskIdentity(r.RaftID, r.Recovery)
	return c.patiently(ctx, "create the cluster's log", func() (err error) {
		c.disk, err = raftlog.Create(dir, ident, r.Snapshot, c.log)
		return err
	})
}

// patiently does what needs the disk. While that is full it waits for room:
// nothing acknowledged is lost, and the node is fenced meanwhile because it
// cannot renew its lease. After any other failure nobody knows what the disk
// holds, and the daemon must not go on.
func (c *Cluster) patiently(ctx context.Context, what string, write func() error) error {
	for tries := 0; ; tries++ {
		err := write()
		switch {
		case err == nil && tries > 0:
			c.log.Info("the disk has room again", "path", c.cfg.Dir)
			return nil
		case err == nil:
			return nil
		case !isFull(err) || ctx.Err() != nil:
			return fmt.Errorf("%s: %w", what, err)
		case tries == 0:
			c.log.Error("the disk is full; this voter waits for room and takes no part meanwhile: free some space", "path", c.cfg.Dir, "err", err)
			c.fence.stuck("the disk under " + c.cfg.Dir + " is full: free some space")
		}
		pause(ctx, fullPause)
	}
}

// isFull reports whether an error will pass when somebody makes room.
func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// compact writes a snapshot and shortens the log, beside the loop: it may take
// as long as the disk likes. If one is being written already, the next one will
// do. A failure costs space only, and is tried again with the next snapshot.
func (c *Cluster) compact(job *core.Compact) {
	select {
	case c.snapshots <- struct{}{}:
	default:
		return
	}
	disk := c.disk
	c.compacting.Go(func() {
		defer func() { <-c.snapshots }()
		err := disk.TakeSnapshot(job.Index, job.ConfState, job.Data)
		if err == nil && job.Keep > 1 {
			err = disk.Compact(job.Keep - 1)
		}
		switch {
		case errors.Is(err, raft.ErrSnapOutOfDate):
			// The leader's snapshot came first.
		case err != nil:
			c.log.Error("shorten the cluster's log", "path", c.cfg.Dir, "err", err)
		}
	})
}

// dropDisk removes the log of a node that votes no more.
func (c *Cluster) dropDisk() error {
	if c.disk == nil {
		return nil
	}
	c.compacting.Wait()
	disk := c.disk
	c.disk = nil
	return disk.Remove()
}
