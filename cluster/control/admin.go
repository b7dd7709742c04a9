package control

import (
	"context"

	"ssi/cluster/pki"
	"ssi/internal/api"
	"ssi/internal/errno"
)

func (c *Control) token(ctx context.Context, call *api.Call) error {
	p, err := params[api.TokenParams](call)
	if err != nil {
		return err
	}
	ttl, role := p.TTL, pki.RoleNode
	if ttl == 0 {
		ttl = api.DefaultTokenTTL
	}
	if ttl < 0 || ttl > api.MaxTokenTTL {
		return errno.New(errno.Invalid, "token", 0, "a token lives up to %v", api.MaxTokenTTL)
	}
	if p.Witness {
		role = pki.RoleWitness
	}
	t, addrs, err := c.Cluster.NewToken(ctx, p.Node, role, ttl)
	if err != nil {
		return err
	}
	return call.Reply(api.TokenReply{Token: t.Secret(), Expires: t.Expiry, Addrs: addrs})
}

func (c *Control) revoke(ctx context.Context, call *api.Call) error {
	p, err := params[api.RevokeParams](call)
	if err != nil {
		return err
	}
	if err := c.Cluster.Revoke(ctx, p.Node, p.Cause); err != nil {
		return err
	}
	return call.Reply(api.RevokeReply{Node: p.Node})
}

func (c *Control) force(ctx context.Context, call *api.Call) error {
	p, err := params[api.ForceParams](call)
	if err != nil {
		return err
	}
	recovery, lost, err := c.Cluster.Force(ctx, p.Cause)
	if err != nil {
		return err
	}
	return call.Reply(api.ForceReply{Recovery: recovery, Lost: lost})
}

func (c *Control) rejoin(ctx context.Context, call *api.Call) error {
	aside, err := c.Cluster.Rejoin(ctx)
	if err != nil {
		return err
	}
	return call.Reply(api.RejoinReply{Aside: aside})
}
