package control

import (
	"context"
	"time"

	"ssi/cluster"
	"ssi/cluster/registry"
	"ssi/internal/api"
	"ssi/internal/errno"
)

const (
	// pageBytes is about how much a page of a list holds: well below the limit of
	// a message, base64 included.
	pageBytes = 4 << 20
	// pageKeys is how many keys are looked at at once.
	pageKeys = 512
)

func kvOf(e *registry.Entry, value bool) api.KV {
	kv := api.KV{Key: e.Key, Create: e.Create, Mod: e.Mod, Version: e.Version, Lease: e.Lease}
	if value {
		kv.Value = e.Value
	}
	return kv
}

// view is the registry, of this moment or as this node knows it.
func (c *Control) view(ctx context.Context, stale bool) (registry.View, error) {
	if stale {
		return c.Cluster.Registry().Stale(), nil
	}
	return c.Cluster.Registry().View(ctx)
}

func (c *Control) get(ctx context.Context, call *api.Call) error {
	p, err := params[api.RegistryGetParams](call)
	if err != nil {
		return err
	}
	if cluster.SecretKey(p.Key) {
		return errno.New(errno.Permission, "registry get", 0, "%s is a secret of the cluster and is shown to nobody", p.Key)
	}
	view, err := c.view(ctx, p.Stale)
	if err != nil {
		return err
	}
	e, err := view.Get(p.Key)
	if err != nil {
		return err
	}
	return call.Reply(api.RegistryGetReply{KV: kvOf(e, true), Revision: view.Revision()})
}

func (c *Control) list(ctx context.Context, call *api.Call) error {
	p, err := params[api.RegistryListParams](call)
	if err != nil {
		return err
	}
	view, err := c.view(ctx, p.Stale)
	if err != nil {
		return err
	}
	reply, err := page(view, p)
	if err != nil {
		return err
	}
	return call.Reply(reply)
}

// page is one page of a list: up to p.Limit keys that may be shown, of about
// pageBytes. Only the last page says that there are no more.
func page(view registry.View, p api.RegistryListParams) (api.RegistryListReply, error) {
	reply := api.RegistryListReply{KVs: []api.KV{}, Revision: view.Revision()}
	size := 0
	for after := p.After; ; {
		entries, more, err := view.List(p.Prefix, pageKeys, after)
		if err != nil {
			return reply, err
		}
		for _, e := range entries {
			after = e.Key
			if cluster.SecretKey(e.Key) {
				continue
			}
			if size > pageBytes || p.Limit > 0 && len(reply.KVs) == p.Limit {
				reply.More = true
				return reply, nil
			}
			kv := kvOf(e, !p.KeysOnly)
			size += len(kv.Key) + len(kv.Value) + 128
			reply.KVs = append(reply.KVs, kv)
		}
		if !more {
			return reply, nil
		}
	}
}

func (c *Control) put(ctx context.Context, call *api.Call) error {
	p, err := params[api.RegistryPutParams](call)
	if err != nil {
		return err
	}
	return c.txn(ctx, call, nil, registry.PutOp(p.Key, p.Value, p.Lease))
}

func (c *Control) cas(ctx context.Context, call *api.Call) error {
	p, err := params[api.RegistryCASParams](call)
	if err != nil {
		return err
	}
	return c.txn(ctx, call, []*registry.Compare{registry.Check(p.Key, p.Mod)}, registry.PutOp(p.Key, p.Value, p.Lease))
}

func (c *Control) txn(ctx context.Context, call *api.Call, checks []*registry.Compare, op *registry.Op) error {
	res, err := c.Cluster.Registry().Txn(ctx, false, checks, op)
	if err != nil {
		return err
	}
	return call.Reply(api.RegistryWriteReply{Revision: res.Revision})
}

func (c *Control) del(ctx context.Context, call *api.Call) error {
	p, err := params[api.RegistryDeleteParams](call)
	if err != nil {
		return err
	}
	if p.Prefix {
		return c.deletePrefix(ctx, call, p)
	}
	var checks []*registry.Compare
	if p.Mod != 0 {
		checks = []*registry.Compare{registry.Check(p.Key, p.Mod)}
	}
	res, err := c.Cluster.Registry().Txn(ctx, false, checks, registry.DeleteOp(p.Key))
	if err != nil {
		return err
	}
	if res.Deleted == 0 {
		return errno.New(errno.NotFound, "registry delete", 0, "no key %s", p.Key)
	}
	return call.Reply(api.RegistryDeleteReply{Deleted: int(res.Deleted), Revision: res.Revision})
}

func (c *Control) deletePrefix(ctx context.Context, call *api.Call, p api.RegistryDeleteParams) error {
	if p.Mod != 0 {
		return errno.New(errno.Invalid, "registry delete", 0, "a revision goes with one key, not with a prefix")
	}
	var reply api.RegistryDeleteReply
	for more := true; more; {
		cmd, err := registry.EncodeDeletePrefix(false, p.Key, 0)
		if err != nil {
			return err
		}
		res, err := c.Cluster.Registry().Do(ctx, cmd)
		if err != nil {
			return err
		}
		reply.Deleted += int(res.Deleted)
		reply.Revision, more = res.Revision, res.More
	}
	return call.Reply(reply)
}

func (c *Control) watchRegistry(ctx context.Context, call *api.Call) error {
	p, err := params[api.RegistryWatchParams](call)
	if err != nil {
		return err
	}
	after := p.After
	if after == 0 {
		after = c.Cluster.Registry().Stale().Revision()
	}
	w, err := c.Cluster.Registry().Watch(p.Prefix, after)
	if err != nil {
		return err
	}
	defer w.Close()
	if err := call.Send(api.RegistryEvent{Revision: after}); err != nil {
		return err
	}
	for {
		events, err := w.Next(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		for _, e := range events {
			if cluster.SecretKey(e.Key) {
				continue
			}
			out := api.RegistryEvent{Revision: e.Revision}
			if e.Entry != nil {
				kv := kvOf(e.Entry, true)
				out.Put = &kv
			} else {
				out.Delete = e.Key
			}
			if err := call.Send(out); err != nil {
				return err
			}
		}
	}
}

func (c *Control) grant(ctx context.Context, call *api.Call) error {
	p, err := params[api.LeaseGrantParams](call)
	if err != nil {
		return err
	}
	res, err := c.Cluster.Registry().Do(ctx, registry.EncodeGrant(c.Cluster.Self(), p.TTL))
	if err != nil {
		return err
	}
	return call.Reply(api.LeaseReply{ID: res.Lease, TTL: p.TTL.Truncate(time.Millisecond)})
}

func (c *Control) renew(ctx context.Context, call *api.Call) error {
	return c.onLease(ctx, call, registry.EncodeRenew)
}

func (c *Control) revokeLease(ctx context.Context, call *api.Call) error {
	return c.onLease(ctx, call, registry.EncodeRevoke)
}

func (c *Control) onLease(ctx context.Context, call *api.Call, encode func(uint64) []byte) error {
	p, err := params[api.LeaseParams](call)
	if err != nil {
		return err
	}
	if _, err := c.Cluster.Registry().Do(ctx, encode(p.ID)); err != nil {
		return err
	}
	return call.Reply(api.LeaseReply{ID: p.ID})
}
