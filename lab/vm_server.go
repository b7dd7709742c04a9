package lab

import (
	"context"
	"errors"
	"time"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/vm"
)

// server makes the control socket's methods.
func (v *vmNodes) server() *api.Server {
	srv := api.NewServer(v.s.log)
	srv.Handle(methodStatus, func(_ context.Context, c *api.Call) error { return c.Reply(v.status()) })
	srv.Handle(methodWait, func(ctx context.Context, c *api.Call) error {
		var p waitParams
		if err := c.Params(&p); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, max(p.Timeout, time.Millisecond))
		defer cancel()
		return v.waitUp(ctx)
	})
	srv.Handle(methodOp, v.handleOp)
	srv.Handle(methodFault, v.handleFault)
	srv.Handle(methodLogs, v.handleLogs)
	srv.Handle(methodExec, v.handleExec)
	return srv
}

// teardown cuts the power of all machines.
func (v *vmNodes) teardown(server *api.Server) error {
	err := v.net.Close()
	server.Close()
	v.s.wg.Wait()
	return err
}

func (v *vmNodes) status() Status {
	st := Status{Name: v.s.opts.Name, Since: v.s.since, Owned: v.s.owned, VM: true}
	for _, g := range v.all() {
		v.mu.Lock()
		node := NodeStatus{Node: g.n, Addr: "by DHCP", State: g.state, Since: g.since, Boots: g.boot, Cause: g.cause}
		v.mu.Unlock()
		if g.n == 1 {
			node.Addr = Addr(1)
		}
		st.Nodes = append(st.Nodes, node)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	st.Faults = v.faults.list()
	return st
}

// guest finds the machine of node n.
func (v *vmNodes) guest(op string, n id.Node) (*guest, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if g := v.guests[n]; g != nil {
		return g, nil
	}
	return nil, errno.New(errno.NotFound, op, 0, "the lab %q has no node %d: its nodes are 1 to %d", v.s.opts.Name, n, len(v.guests))
}

func (v *vmNodes) handleOp(ctx context.Context, c *api.Call) error {
	var p opParams
	if err := c.Params(&p); err != nil {
		return err
	}
	v.s.log.Info("request", "op", p.Op, "node", p.Node)
	switch p.Op {
	case opDown:
		err := c.Reply(opReply{})
		v.s.cancel(errno.New(errno.Unavailable, "lab", 0, "the lab %q was taken down", v.s.opts.Name))
		return err
	case opAdd:
		n, err := v.add(ctx)
		if err != nil {
			return err
		}
		return c.Reply(opReply{Node: n})
	}
	g, err := v.guest(p.Op, p.Node)
	if err != nil {
		return err
	}
	switch p.Op {
	case opStart:
		err = v.start(ctx, g)
	case opCrash:
		err = v.crash(g)
	case opPause:
		err = v.freeze(ctx, g, true)
	case opResume:
		err = v.freeze(ctx, g, false)
	default:
		err = errno.New(errno.Invalid, "lab", 0, "no operation %q", p.Op)
	}
	if err != nil {
		return err
	}
	return c.Reply(opReply{Node: p.Node})
}

func (v *vmNodes) handleFault(_ context.Context, c *api.Call) error {
	var p faultParams
	if err := c.Params(&p); err != nil {
		return err
	}
	for _, n := range []id.Node{p.A, p.B} {
		if n == 0 {
			continue
		}
		if _, err := v.guest(p.Set, n); err != nil {
			return err
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.faults.change(p); err != nil {
		return err
	}
	return v.disturb()
}

// disturb makes the segment's faults those of the table. The caller holds v.mu.
func (v *vmNodes) disturb() error {
	segment, err := v.net.Segment(vmSegment)
	if err != nil {
		return err
	}
	segment.ClearFaults()
	port := func(n id.Node) string { return vm.PortName(Host(n), 0) }
	for _, f := range v.faults.list() {
		fault := vm.Fault{Cut: f.Cut, Loss: f.Loss, Delay: f.Delay}
		if f.To != 0 {
			err = errors.Join(err, segment.SetFault(port(f.From), port(f.To), fault))
			continue
		}
		err = errors.Join(err, segment.SetFault(port(f.From), "", fault), segment.SetFault("", port(f.From), fault))
	}
	return err
}

func (v *vmNodes) handleLogs(_ context.Context, c *api.Call) error {
	var p logsParams
	if err := c.Params(&p); err != nil {
		return err
	}
	g, err := v.guest("logs", p.Node)
	if err != nil {
		return err
	}
	if p.Follow {
		return errno.New(errno.Invalid, "logs", p.Node, "the console of a machine is shown without -f only; watch it in its shell: `ssi lab%s sh %d`", nameFlag(v.s.opts.Name), p.Node)
	}
	const piece = 64 << 10
	for text := g.m.Console().Text(); text != ""; {
		n := min(piece, len(text))
		if err := c.Send(logsReply{Data: []byte(text[:n])}); err != nil {
			return err
		}
		text = text[n:]
	}
	return nil
}
