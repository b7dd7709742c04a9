package cluster

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"ssi/cluster/pki"
	"ssi/cluster/registry"
	"ssi/internal/errno"
)

// maxFoundPause is the longest pause between two tries to found the cluster.
const maxFoundPause = 10 * time.Second

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
	for wait := retryPause; ctx.Err() == nil; wait = min(2*wait, maxFoundPause) {
		err := c.foundOnce(ctx, f)
		if err == nil {
			err = os.Remove(path)
		}
		if err == nil {
			return
		}
		c.log.Warn("found the cluster", "err", err)
		pause(ctx, wait)
	}
}

func (c *Cluster) foundOnce(ctx context.Context, f founding) error {
	ops := []*registry.Op{registry.PutOp(keyCAKey, f.CAKey, 0),
		registry.PutOp(keyNumber(c.self), mustJSON(number{Hostname: c.cfg.Info.Name, Role: pki.RoleNode, Given: time.Now()}), 0)}
	for hash, rec := range f.Tokens {
		ops = append(ops, registry.PutOp(keyToken(hash), mustJSON(rec), 0))
	}
	_, err := c.Registry().Txn(ctx, true, []*registry.Compare{registry.Check(keyCAKey, 0)}, ops...)
	if errno.Is(err, errno.Exists) {
		return nil // written by an earlier try whose end was not seen
	}
	return err
}
