package proctab

import (
	"context"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/sys"
)

func credentialsOf(p api.Peer) sys.Credentials {
	return sys.Credentials{UID: p.UID, GID: p.GID, Groups: p.Groups}
}

func (l *Local) signal(ctx context.Context, c *api.Call) error {
	var req api.SignalProcesses
	if err := c.Params(&req); err != nil {
		return err
	}
	if err := checkSignal(req.Signal); err != nil {
		return err
	}
	who := credentialsOf(c.Peer)
	res, err := l.act(ctx, "signal", req.Targets, nodeTimeout(req.Timeout),
		func(ts []api.ProcessTarget) ([]syscall.Errno, error) {
			return l.node.reader.signal(who, ts, req.Signal)
		},
		methodSignal, func(ts []*Target) proto.Message {
			return &SignalRequest{Caller: caller(who), Targets: ts, Signal: int32(req.Signal)}
		})
	if err != nil {
		return err
	}
	return c.Reply(res)
}

func (l *Local) renice(ctx context.Context, c *api.Call) error {
	var req api.ReniceProcesses
	if err := c.Params(&req); err != nil {
		return err
	}
	nice := max(-20, min(19, req.Nice))
	who := credentialsOf(c.Peer)
	res, err := l.act(ctx, "renice", req.Targets, nodeTimeout(req.Timeout),
		func(ts []api.ProcessTarget) ([]syscall.Errno, error) {
			return l.node.reader.renice(who, ts, nice)
		},
		methodRenice, func(ts []*Target) proto.Message {
			return &ReniceRequest{Caller: caller(who), Targets: ts, Nice: int32(nice)}
		})
	if err != nil {
		return err
	}
	return c.Reply(res)
}

// owner is the node that a target is addressed at.
func (l *Local) owner(n id.Node, pid id.PID) id.Node {
	if n != 0 {
		return n
	}
	if h := max(pid, -pid).Home(); h != 0 {
		return h
	}
	return l.cluster.Self()
}

// act sends each target to its node, in one message a node, and puts the
// outcomes back in order. A node that cannot be asked costs its targets only.
func (l *Local) act(ctx context.Context, op string, ts []api.ProcessTarget, timeout time.Duration,
	here func([]api.ProcessTarget) ([]syscall.Errno, error),
	method string, there func([]*Target) proto.Message,
) (*api.ProcessResults, error) {
	if err := checkTargets(op, ts); err != nil {
		return nil, err
	}
	results := make([]api.ProcessResult, len(ts))
	byNode := map[id.Node][]int{}
	var nodes []id.Node
	for i, t := range ts {
		n := l.owner(t.Node, t.PID)
		results[i] = api.ProcessResult{Node: n, PID: t.PID}
		if _, ok := byNode[n]; !ok {
			nodes = append(nodes, n)
		}
		byNode[n] = append(byNode[n], i)
	}
	each(ctx, nodes, timeout, func(ctx context.Context, _ int, n id.Node) {
		index := byNode[n]
		part := make([]api.ProcessTarget, len(index))
		for k, i := range index {
			part[k] = ts[i]
		}
		errnos, err := l.actNode(ctx, op, n, part, here, method, there)
		for k, i := range index {
			if err != nil {
				results[i].Error = reason(n, timeout, err)
			} else {
				results[i].Errno = errnos[k]
			}
		}
	})
	return &api.ProcessResults{Results: results}, nil
}

func (l *Local) actNode(ctx context.Context, op string, n id.Node, ts []api.ProcessTarget,
	here func([]api.ProcessTarget) ([]syscall.Errno, error),
	method string, there func([]*Target) proto.Message,
) ([]syscall.Errno, error) {
	if n == l.cluster.Self() {
		return here(ts)
	}
	if _, err := l.choose(op, n); err != nil {
		return nil, err
	}
	var rep ActReply
	if err := l.cluster.Call(ctx, n, method, there(targetMessages(ts)), &rep); err != nil {
		return nil, err
	}
	if len(rep.GetErrnos()) != len(ts) {
		return nil, errno.New(errno.Unknown, op, n, "answered for %d of %d processes", len(rep.GetErrnos()), len(ts))
	}
	out := make([]syscall.Errno, len(ts))
	for i, e := range rep.GetErrnos() {
		out[i] = syscall.Errno(e)
	}
	return out, nil
}
