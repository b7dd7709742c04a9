package cluster

import (
	"context"
	"maps"
	"slices"
	"time"

	"ssi/cluster/core"
	"ssi/cluster/member"
)

// retryPause is how long work of the leader or of init waits before it repeats
// what failed.
const retryPause = 200 * time.Millisecond

// cleanUp takes dead nodes from KCLEANUP over UCLEANUP to DOWN. When this node
// dies in the middle, the next leader goes on: a hook may run twice, never not.
func (c *Cluster) cleanUp(ctx context.Context) {
	ran := map[core.Cleanup]bool{} // cleaned up, but not decided yet: the hooks ran
	for {
		status, changed := c.status.Get()
		maps.DeleteFunc(ran, func(job core.Cleanup, _ bool) bool { return !slices.Contains(status.Cleanup, job) })
		var again <-chan time.Time
		for _, job := range status.Cleanup {
			if err := c.cleanUpNode(ctx, job, ran); err != nil && ctx.Err() == nil {
				c.log.Warn("clean up after a node", "node", job.Node, "to", job.To, "err", err)
				again = time.After(retryPause)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-again:
		}
	}
}

func (c *Cluster) cleanUpNode(ctx context.Context, job core.Cleanup, ran map[core.Cleanup]bool) error {
	n := c.members.Load().Get(job.Node)
	if n.Incarnation != job.Incarnation || n.State+1 != job.To {
		return nil // done meanwhile, or this node's view is a step behind
	}
	if n.State == member.UCleanup && !n.Info.Witness && !ran[job] {
		c.hooks(ctx, "nodedown.d", hookEvent{node: n.Node, name: n.Info.Name, epoch: n.Since, cause: n.Cause}, nil)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	ran[job] = true
	return c.run(ctx, func() { c.core.Cleaned(job) })
}
