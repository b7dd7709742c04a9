package lab

import (
	"context"
	"time"

	"ssi/internal/api"
	"ssi/internal/errno"
)

// server makes the control socket's methods.
func (s *supervisor) server() *api.Server {
	srv := api.NewServer(s.log)
	srv.Handle(methodStatus, func(_ context.Context, c *api.Call) error { return c.Reply(s.status()) })
	srv.Handle(methodWait, s.handleWait)
	srv.Handle(methodOp, s.handleOp)
	srv.Handle(methodFault, s.handleFault)
	srv.Handle(methodLogs, s.handleLogs)
	srv.Handle(methodExec, s.handleExec)
	return srv
}

func (s *supervisor) status() Status {
	st := Status{Name: s.opts.Name, Since: s.since, Owned: s.owned, Faults: s.net.list()}
	for _, m := range s.all() {
		wire := s.net.counters(m.n)
		s.mu.Lock()
		node := NodeStatus{
			Node: m.n, Addr: Addr(m.n), State: m.state, Since: m.since, Boots: m.boots, Cause: m.cause, Wire: wire,
		}
		if m.life != nil {
			node.PID = m.life.pid
		}
		st.Nodes = append(st.Nodes, node)
		s.mu.Unlock()
	}
	return st
}

func (s *supervisor) handleWait(ctx context.Context, c *api.Call) error {
	var p waitParams
	if err := c.Params(&p); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, max(p.Timeout, time.Millisecond))
	defer cancel()
	return s.waitUp(ctx)
}

func (s *supervisor) handleOp(ctx context.Context, c *api.Call) error {
	var p opParams
	if err := c.Params(&p); err != nil {
		return err
	}
	s.log.Info("request", "op", p.Op, "node", p.Node)
	switch p.Op {
	case opDown:
		err := c.Reply(opReply{})
		s.cancel(errno.New(errno.Unavailable, "lab", 0, "the lab %q was taken down", s.opts.Name))
		return err
	case opAdd:
		n, err := s.add(ctx)
		if err != nil {
			return err
		}
		return c.Reply(opReply{Node: n})
	}
	m, err := s.machine(p.Op, p.Node)
	if err != nil {
		return err
	}
	switch p.Op {
	case opStart:
		err = m.start(ctx, nil)
	case opCrash:
		err = m.crash()
	case opPause:
		err = m.pause(true)
	case opResume:
		err = m.pause(false)
	default:
		err = errno.New(errno.Invalid, "lab", 0, "no operation %q", p.Op)
	}
	if err != nil {
		return err
	}
	return c.Reply(opReply{Node: p.Node})
}

func (s *supervisor) handleFault(_ context.Context, c *api.Call) error {
	var p faultParams
	if err := c.Params(&p); err != nil {
		return err
	}
	if p.A != 0 {
		if _, err := s.machine(p.Set, p.A); err != nil {
			return err
		}
	}
	if p.B != 0 {
		if _, err := s.machine(p.Set, p.B); err != nil {
			return err
		}
	}
	return s.net.disturb(p)
}

func (s *supervisor) handleLogs(ctx context.Context, c *api.Call) error {
	var p logsParams
	if err := c.Params(&p); err != nil {
		return err
	}
	m, err := s.machine("logs", p.Node)
	if err != nil {
		return err
	}
	return m.console.follow(ctx, p.Follow, func(b []byte) error { return c.Send(logsReply{Data: b}) })
}
