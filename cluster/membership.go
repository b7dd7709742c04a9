package cluster

import (
	"context"

	"ssi/cluster/core"
	"ssi/cluster/member"
	"ssi/internal/id"
)

// SetState makes a transition that an operator may make.
func (c *Cluster) SetState(ctx context.Context, n id.Node, to member.State, cause string) (id.Epoch, error) {
	return c.command(ctx, member.Command{Op: member.SetState, Node: n, To: to, Cause: cause})
}

// command has a command to the membership decided.
func (c *Cluster) command(ctx context.Context, cmd member.Command) (id.Epoch, error) {
	raw, err := c.propose(ctx, core.Membership, cmd.Encode())
	if err != nil {
		return 0, err
	}
	return member.DecodeResult(raw)
}

// goUp takes this node from COMINGUP to UP as soon as it serves.
func (c *Cluster) goUp(ctx context.Context) {
	for {
		status, err := c.status.Wait(ctx, func(s core.Status) bool { return s.Serving && s.State == member.ComingUp })
		if err != nil {
			return
		}
		_, err = c.command(ctx, member.Command{Op: member.MarkUp, Node: c.self, Incarnation: status.Incarnation, Cause: "ready"})
		if err == nil {
			_, _ = c.status.Wait(ctx, func(s core.Status) bool { return s.State != member.ComingUp })
		} else if ctx.Err() == nil {
			c.log.Warn("go up", "err", err)
			pause(ctx, retryPause)
		}
	}
}

// reportGone tells of nodes whose life ended between two views.
func (c *Cluster) reportGone(before, after *member.View) {
	if c.cfg.OnGone == nil {
		return
	}
	for _, old := range before.Nodes {
		now := after.Get(old.Node)
		if !old.State.Alive() || old.Node == c.self || now.State.Alive() && now.Incarnation == old.Incarnation {
			continue
		}
		cause := now.Cause
		switch {
		case now.State == member.NeverUp:
			cause = "it was removed from the cluster"
		case now.Incarnation != old.Incarnation:
			cause = "it was started anew"
		}
		c.cfg.OnGone(old.Node, cause)
	}
}
