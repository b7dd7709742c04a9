package control

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"ssi/cluster"
	"ssi/cluster/member"
	"ssi/cluster/registry"
	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// order is a shutdown that was asked for, as the registry keeps it.
type order struct {
	Action  string         `json:"action"`
	At      time.Time      `json:"at,omitzero"` // by the clock of the node it is meant for; zero: at once
	Message string         `json:"message,omitempty"`
	Life    id.Incarnation `json:"life"` // of the node it is meant for
}

// shutdown notes the order in the registry; the node it is for carries it out.
func (c *Control) shutdown(ctx context.Context, call *api.Call) error {
	p, err := params[api.ShutdownParams](call)
	if err != nil {
		return err
	}
	if p.Node == 0 {
		p.Node = c.Cluster.Self()
	}
	node := c.Cluster.Members().Load().Get(p.Node)
	switch {
	case node.State == member.NeverUp:
		return errno.New(errno.NotFound, "shutdown", 0, "there is no node %d; `cluster` lists those there are", p.Node)
	case !node.State.Alive():
		return errno.New(errno.Unavailable, "shutdown", p.Node, "is %v already", node.State)
	case p.Delay < 0 || p.Delay > api.MaxShutdownDelay:
		return errno.New(errno.Invalid, "shutdown", p.Node, "it can be asked for up to %v ahead", api.MaxShutdownDelay)
	}
	at := time.Now().Add(p.Delay)
	o := order{Action: p.Action, Message: p.Message, Life: node.Incarnation}
	if p.Delay > 0 {
		o.At = at.Add(c.Cluster.ClockOffsets(ctx)[p.Node])
	}
	switch p.Action {
	case api.ActionHalt, api.ActionPowerOff, api.ActionReboot:
		err = c.Cluster.Order(ctx, p.Node, mustJSON(o))
		if err == nil && p.Delay > 0 && node.State == member.Up {
			_, err = c.Cluster.SetState(ctx, p.Node, member.Shutdown, cause(o))
		}
	case api.ActionCancel:
		err = c.cancel(ctx, p.Node, node)
	default:
		err = errno.New(errno.Invalid, "shutdown", p.Node, "no action %q; there are %s, %s, %s and %s",
			p.Action, api.ActionHalt, api.ActionPowerOff, api.ActionReboot, api.ActionCancel)
	}
	if err != nil {
		return err
	}
	return call.Reply(api.ShutdownReply{Node: p.Node, At: at})
}

// cancel withdraws the order that waits for this life of the node.
func (c *Control) cancel(ctx context.Context, n id.Node, node member.Node) error {
	view, err := c.Cluster.Registry().View(ctx)
	if err != nil {
		return err
	}
	if ord, err := orderFor(view, n); err != nil || ord.Life != node.Incarnation {
		return errno.New(errno.NotFound, "shutdown", n, "no shutdown waits for its time")
	}
	if err := c.Cluster.Order(ctx, n, nil); err != nil || node.State != member.Shutdown {
		return err
	}
	_, err = c.Cluster.SetState(ctx, n, member.Up, "the shutdown was cancelled")
	return err
}

// orderFor is what the registry holds for a node, of whatever life.
func orderFor(view registry.View, n id.Node) (ord order, err error) {
	e, err := view.Get(cluster.OrderKey(n))
	if err != nil {
		return order{}, err
	}
	return ord, json.Unmarshal(e.Value, &ord)
}

// cause is what the transitions of a shutdown say.
func cause(o order) string {
	text := "shutdown (" + o.Action + ")"
	if o.Message != "" {
		text += ": " + o.Message
	}
	return text
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain data: cannot fail
	}
	return b
}

// Orders carries out the shutdowns of this node.
type Orders struct {
	Cluster *cluster.Cluster
	Log     *slog.Logger
	// End ends this machine in order, as the action says; it is called once.
	End func(action, cause string)
}

// maxWait is how long Run waits without looking at the clock, which somebody may
// set.
const maxWait = time.Minute

// Run waits for an order for this life of the node and for its time, carries it
// out and returns; or returns when ctx ends. A node that an operator set to
// GOINGDOWN powers off.
func (o *Orders) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		view, viewChanged := o.Cluster.Members().Get()
		_, keysChanged := o.Cluster.Revision().Get()
		wait := maxWait
		if ord, ok := o.pending(); ok {
			if wait = min(wait, time.Until(ord.At)); wait <= 0 {
				o.End(ord.Action, cause(ord))
				return
			}
		} else if node := view.Get(o.Cluster.Self()); node.State == member.GoingDown &&
			node.Incarnation == o.Cluster.Incarnation() && !o.Cluster.Leaving() {
			o.End(api.ActionPowerOff, node.Cause)
			return
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-viewChanged:
		case <-keysChanged:
		case <-timer.C:
		}
	}
}

// pending is the order that waits for this life of the node. One for an earlier
// life, which the membership may still show, has been carried out.
func (o *Orders) pending() (order, bool) {
	ord, err := orderFor(o.Cluster.Registry().Stale(), o.Cluster.Self())
	if err != nil {
		if !errno.Is(err, errno.NotFound) {
			o.Log.Error("an order cannot be read", "op", "shutdown", "err", err)
		}
		return order{}, false
	}
	return ord, ord.Life == o.Cluster.Incarnation()
}
