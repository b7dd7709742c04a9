package cluster

import (
	"context"
	"time"

	"ssi/cluster/core"
	"ssi/cluster/registry"
	"ssi/internal/errno"
)

// callTimeout is the deadline of a proposal or barrier whose context has none.
const callTimeout = 10 * time.Second

// Registry is the replicated registry as the node's daemon uses it. Its methods
// may be called from any goroutine.
type Registry struct{ c *Cluster }

// Do has an encoded command (registry.EncodeTxn and so on) carried out and
// returns its result. An error of kind errno.Unknown means that the command may
// have been carried out.
func (r Registry) Do(ctx context.Context, cmd []byte) (*registry.Result, error) {
	raw, err := r.c.propose(ctx, core.App, cmd)
	if err != nil {
		return nil, err
	}
	return registry.DecodeResult(raw)
}

// Put writes one key. system permits keys below /sys.
func (r Registry) Put(ctx context.Context, system bool, key string, value []byte, lease uint64) (*registry.Result, error) {
	return r.Txn(ctx, system, nil, registry.PutOp(key, value, lease))
}

// Txn carries out ops if all checks hold.
func (r Registry) Txn(ctx context.Context, system bool, checks []*registry.Compare, ops ...*registry.Op) (*registry.Result, error) {
	cmd, err := registry.EncodeTxn(system, checks, ops...)
	if err != nil {
		return nil, err
	}
	return r.Do(ctx, cmd)
}

// Stale is the registry as this node knows it.
func (r Registry) Stale() registry.View { return r.c.hub.View() }

// View is the registry, at least as new as the call.
func (r Registry) View(ctx context.Context) (registry.View, error) {
	if err := r.c.Barrier(ctx); err != nil {
		return registry.View{}, err
	}
	return r.c.hub.View(), nil
}

// Watch follows the changes under prefix after a revision; see registry.Hub.
func (r Registry) Watch(prefix string, after uint64) (*registry.Watch, error) {
	return r.c.hub.Watch(prefix, after)
}

// Barrier waits until this node has seen all that was decided before the call.
func (c *Cluster) Barrier(ctx context.Context) error {
	_, err := c.ask(ctx, func(req uint64, deadline time.Duration) { c.core.Barrier(req, deadline) })
	if errno.Is(err, errno.Unknown) { // nothing is changed by a question
		err = errno.New(errno.Unavailable, "read", c.self, "no answer in time, or the daemon is stopping; try again")
	}
	return err
}

// propose has a command decided and returns its result.
func (c *Cluster) propose(ctx context.Context, kind core.Kind, cmd []byte) ([]byte, error) {
	return c.ask(ctx, func(req uint64, deadline time.Duration) { c.core.Propose(req, deadline, kind, cmd) })
}

// ask starts something in the core, by start in the loop, and waits for its
// outcome. The core ends it by the deadline; the wait ends earlier only with ctx,
// and then the outcome is not known.
func (c *Cluster) ask(ctx context.Context, start func(req uint64, deadline time.Duration)) ([]byte, error) {
	timeout := callTimeout
	if d, ok := ctx.Deadline(); ok {
		timeout = time.Until(d)
	}
	deadline := boottime() + timeout
	done := make(chan core.Outcome, 1)
	err := c.send(ctx, func() {
		c.nextReq++
		c.waiting[c.nextReq] = done
		start(c.nextReq, deadline)
	})
	if err != nil {
		return nil, err
	}
	why := "the daemon is stopping"
	select {
	case out := <-done:
		return out.Result, out.Err
	case <-c.ended:
	case <-ctx.Done():
		// The core's own deadline is the same: take its answer, which is the more
		// precise one, if it comes at once.
		select {
		case out := <-done:
			return out.Result, out.Err
		case <-time.After(outcomeGrace):
			why = "no answer in time"
		case <-c.ended:
		}
	}
	select {
	case out := <-done: // the loop's last word
		return out.Result, out.Err
	default:
		return nil, errno.New(errno.Unknown, "cluster call", c.self, "%s; it may have been carried out", why)
	}
}

// outcomeGrace is how long ask waits for the core's word after the deadline: the
// loop looks at deadlines at least this often.
const outcomeGrace = 250 * time.Millisecond
