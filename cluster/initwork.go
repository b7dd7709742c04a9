package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"ssi/cluster/core"
	"ssi/cluster/member"
	"ssi/cluster/registry"
	"ssi/internal/errno"
	"ssi/internal/id"
)

const (
	// leaseTick is how often the init holder looks for registry leases that ran
	// out; their shortest life is registry.MinTTL.
	leaseTick = 250 * time.Millisecond
	// tokenTick is how often it forgets old tokens.
	tokenTick = time.Hour
	// retryPause is how long it waits before it repeats work that failed.
	retryPause = 200 * time.Millisecond
	// maxExpiries is how many leases end in one look.
	maxExpiries = 64
)

// cleanUp takes dead nodes from KCLEANUP over UCLEANUP to DOWN. When it dies in
// the middle, the next init holder goes on: a hook may run twice, never not.
func (c *Cluster) cleanUp(ctx context.Context) {
	for {
		status, changed := c.status.Get()
		failed := false
		for _, job := range status.Cleanup {
			if err := c.cleanUpNode(ctx, job); err != nil && ctx.Err() == nil {
				c.log.Warn("clean up after a node", "node", job.Node, "to", job.To, "err", err)
				failed = true
			}
		}
		var again <-chan time.Time
		if failed {
			again = time.After(retryPause)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-again:
		}
	}
}

func (c *Cluster) cleanUpNode(ctx context.Context, job core.Cleanup) error {
	n := c.members.Load().Get(job.Node)
	if n.Incarnation != job.Incarnation || n.State != member.KCleanup && n.State != member.UCleanup || n.State >= job.To {
		return nil // done meanwhile, or this node's view is a step behind
	}
	if n.State == member.UCleanup && !n.Info.Witness {
		event := hookEvent{node: n.Node, name: n.Info.Name, epoch: n.Since, cause: n.Cause}
		if err := runHooks(ctx, c.log, c.cfg.HooksDir+"/nodedown.d", event); err != nil {
			c.log.Warn("nodedown", "err", err)
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return c.run(ctx, func() { c.core.Cleaned(job) })
}

// nodeup runs the nodeup hooks for every node that came up, in the order of the
// transitions. The registry remembers how far it got, so that a change of the
// init holder leaves none out.
func (c *Cluster) nodeup(ctx context.Context) {
	for {
		view, changed := c.members.Get()
		err := c.nodeupOnce(ctx, view)
		var again <-chan time.Time
		if err != nil && ctx.Err() == nil {
			c.log.Warn("nodeup", "err", err)
			again = time.After(retryPause)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-again:
		}
	}
}

func (c *Cluster) nodeupOnce(ctx context.Context, view *member.View) error {
	reg, err := c.Registry().View(ctx)
	if err != nil {
		return err
	}
	var done id.Epoch
	if e, err := reg.Get(keyNodeupDone); err == nil {
		if err := json.Unmarshal(e.Value, &done); err != nil {
			return err
		}
	}
	up := false
	news, _ := view.Since(done)
	for _, t := range news {
		if t.Init || t.From != member.ComingUp || t.To != member.Up {
			continue
		}
		n := view.Get(t.Node)
		if n.Info.Witness {
			continue
		}
		up = true
		event := hookEvent{node: t.Node, name: n.Info.Name, epoch: t.Epoch, cause: t.Cause}
		if err := runHooks(ctx, c.log, c.cfg.HooksDir+"/nodeup.d", event); err != nil {
			c.log.Warn("nodeup", "err", err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if !up {
		return nil
	}
	_, err = c.Registry().Put(ctx, true, keyNodeupDone, mustJSON(view.Epoch), 0)
	return err
}

// expireLeases ends the registry leases that were not renewed in time.
func (c *Cluster) expireLeases(ctx context.Context) {
	clock := registry.NewLeaseClock()
	every(ctx, leaseTick, func() {
		var overdue [][]byte
		err := c.run(ctx, func() { overdue = clock.Overdue(c.store, boottime(), maxExpiries) })
		for _, cmd := range overdue {
			_, err = c.Registry().Do(ctx, cmd)
			if errno.Is(err, errno.Stale) || errno.Is(err, errno.NotFound) {
				err = nil // renewed or gone meanwhile
			}
		}
		if err != nil && ctx.Err() == nil {
			c.log.Warn("end leases of the registry", "err", err)
		}
	})
}

func (c *Cluster) oldTokens(ctx context.Context) {
	every(ctx, tokenTick, func() {
		if err := c.forgetTokens(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("forget old tokens", "err", err)
		}
	})
}

// every calls f now and then every d until ctx ends.
func every(ctx context.Context, d time.Duration, f func()) {
	ticker := time.NewTicker(d)
	defer ticker.Stop()
	for ctx.Err() == nil {
		f()
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

// run runs f in the loop and waits for it.
func (c *Cluster) run(ctx context.Context, f func()) error {
	done := make(chan struct{})
	if err := c.send(ctx, func() { f(); close(done) }); err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-c.ended:
		return errors.New("the daemon is stopping")
	}
}
