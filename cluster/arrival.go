package cluster

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"ssi/cluster/core"
	"ssi/cluster/member"
	"ssi/cluster/registry"
	"ssi/internal/errno"
)

// goUp takes this node from COMINGUP to UP as soon as it is ready for work.
func (c *Cluster) goUp(ctx context.Context) {
	for {
		status, err := c.status.Wait(ctx, func(s core.Status) bool { return s.Serving && s.State == member.ComingUp })
		if err != nil {
			return
		}
		if err := c.goUpOnce(ctx, status); err == nil {
			_, err = c.status.Wait(ctx, func(s core.Status) bool { return s.State != member.ComingUp })
			if err != nil {
				return
			}
		} else if ctx.Err() == nil {
			c.log.Warn("not ready to go up", "err", err)
			pause(ctx, retryPause)
		}
	}
}

func (c *Cluster) goUpOnce(ctx context.Context, s core.Status) error {
	if c.cfg.Ready != nil {
		if err := c.cfg.Ready(ctx); err != nil {
			return err
		}
	}
	_, err := c.Command(ctx, member.Command{Op: member.MarkUp, Node: c.self, Incarnation: s.Incarnation, Cause: "ready"})
	return err
}

// found writes the secrets of a new cluster into its registry, once this node
// serves, and then removes the file they came in.
func (c *Cluster) found(ctx context.Context) {
	path := filepath.Join(c.cfg.Dir, fileFounding)
	var f founding
	if err := readJSON(path, &f); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			c.log.Error("found the cluster", "err", err)
		}
		return
	}
	if _, err := c.serving.Wait(ctx, func(s Serving) bool { return s.OK }); err != nil {
		return
	}
	for ctx.Err() == nil {
		err := c.foundOnce(ctx, f)
		if err == nil {
			err = os.Remove(path)
		}
		if err == nil {
			return
		}
		c.log.Warn("found the cluster", "err", err)
		pause(ctx, retryPause)
	}
}

func (c *Cluster) foundOnce(ctx context.Context, f founding) error {
	ops := []*registry.Op{registry.PutOp(keyCAKey, f.CAKey, 0),
		registry.PutOp(keyNumber(c.self), mustJSON(number{Hostname: c.cfg.Info.Name, Role: "node", Given: time.Now()}), 0)}
	for hash, rec := range f.Tokens {
		ops = append(ops, registry.PutOp(keyToken(hash), mustJSON(rec), 0))
	}
	_, err := c.Registry().Txn(ctx, true, []*registry.Compare{registry.Check(keyCAKey, 0)}, ops...)
	if errno.Is(err, errno.Exists) {
		return nil // written by an earlier try whose end was not seen
	}
	return err
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
