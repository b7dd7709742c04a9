package cluster

import (
	"context"
	"encoding/json"
	"path/filepath"
	"time"

	"ssi/cluster/member"
	"ssi/internal/id"
)

// nodeup runs the nodeup hooks for every node that came up, in the order of the
// transitions. The registry remembers how far it got, so that a change of the
// init holder leaves none out; it may run one twice. A node that is gone again
// before its hooks could begin gets none: they would come after those of its
// death.
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
	news, complete := view.Since(done)
	if !complete {
		c.log.Warn("nodeup: transitions are no longer known; nodes that came up in them got no hooks", "after", done)
	}
	for _, t := range news {
		n := view.Get(t.Node)
		if t.Init || t.From != member.ComingUp || t.To != member.Up || n.Info.Witness {
			continue
		}
		up = true
		c.hooks(ctx, "nodeup.d", hookEvent{node: t.Node, name: n.Info.Name, epoch: t.Epoch, cause: t.Cause}, func() bool {
			now := c.members.Load().Get(t.Node)
			return now.Incarnation == t.Incarnation && now.State.Alive()
		})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if !up && complete {
		return nil
	}
	_, err = c.Registry().Put(ctx, true, keyNodeupDone, mustJSON(view.Epoch), 0)
	return err
}

// hooks runs the hooks of a directory, one directory at a time: those for the
// death of a node never overtake those for its coming. wanted is asked when it is
// their turn; nil: they are. Failures are logged.
func (c *Cluster) hooks(ctx context.Context, dir string, e hookEvent, wanted func() bool) {
	select {
	case c.hooking <- struct{}{}:
		defer func() { <-c.hooking }()
	case <-ctx.Done():
		return
	}
	if wanted != nil && !wanted() {
		return
	}
	if err := runHooks(ctx, c.log, filepath.Join(c.cfg.HooksDir, dir), e); err != nil {
		c.log.Warn("hooks", "op", dir, "err", err)
	}
}
