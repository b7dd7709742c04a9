package machine

import (
	"context"

	"ssi/internal/api"
	"ssi/internal/errno"
)

// Control is the table's methods of the local socket. Anyone may list it;
// changing it is for root.
type Control struct{ Table *Table }

// Register adds the methods to the server of the local socket.
func (c *Control) Register(s *api.Server) {
	s.Handle(api.MethodMachineList, c.list)
	s.Handle(api.MethodMachineAdd, change(c.add))
	s.Handle(api.MethodMachineNext, change(c.Table.AllowNext))
	s.Handle(api.MethodMachineChange, change(c.change))
	s.Handle(api.MethodMachineRemove, change(c.remove))
	s.Handle(api.MethodMachineApprove, change(c.approve))
	s.Handle(api.MethodMachineDeny, change(c.deny))
}

// change makes a handler of what only root may do, with a deadline.
func change[P, R any](f func(context.Context, P) (R, error)) api.Handler {
	return func(ctx context.Context, call *api.Call) error {
		if !call.Peer.Root() {
			return errno.New(errno.Permission, call.Method, 0, "only root may do this")
		}
		var p P
		if err := call.Params(&p); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		r, err := f(ctx, p)
		if err != nil {
			return err
		}
		return call.Reply(r)
	}
}

func (c *Control) list(_ context.Context, call *api.Call) error {
	reply, err := c.Table.List()
	if err != nil {
		return err
	}
	return call.Reply(reply)
}

func (c *Control) add(ctx context.Context, p api.MachineAddParams) (api.MachineAddReply, error) {
	reply := api.MachineAddReply{Machines: []api.MachineInfo{}}
	added, err := c.Table.Add(ctx, p.Specs)
	if err != nil {
		return reply, err
	}
	for _, m := range added {
		info, err := c.Table.Info(m)
		if err != nil {
			return reply, err
		}
		reply.Machines = append(reply.Machines, info)
	}
	return reply, nil
}

// one is the reply about the machine that an edit changed.
func (c *Control) one(m *Machine, err error) (api.MachineReply, error) {
	if err != nil {
		return api.MachineReply{}, err
	}
	info, err := c.Table.Info(m)
	return api.MachineReply{Machine: info}, err
}

func (c *Control) change(ctx context.Context, p api.MachineChangeParams) (api.MachineReply, error) {
	return c.one(c.Table.Change(ctx, p.Machine, p.Change))
}

func (c *Control) approve(ctx context.Context, p api.MachineApproveParams) (api.MachineReply, error) {
	return c.one(c.Table.Approve(ctx, p.Machine, p.Change))
}

func (c *Control) deny(ctx context.Context, p api.MachineDenyParams) (api.MachineReply, error) {
	return c.one(c.Table.Deny(ctx, p.Machine))
}

func (c *Control) remove(ctx context.Context, p api.MachineRemoveParams) (api.MachineRemoveReply, error) {
	m, revoked, err := c.Table.Remove(ctx, p)
	if err != nil {
		return api.MachineRemoveReply{}, err
	}
	info, err := c.Table.Info(m)
	return api.MachineRemoveReply{Machine: info, Revoked: revoked}, err
}
