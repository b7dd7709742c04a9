package proctab

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"ssi/internal/api"
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
		func(ts []api.ProcessTarget) ([]outcome, error) {
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
		func(ts []api.ProcessTarget) ([]outcome, error) {
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
// outcomes back in order: a process to its home, and if that says where it lives, there; a group to
// all nodes. A node that cannot be asked costs its targets only.
func (l *Local) act(ctx context.Context, op string, ts []api.ProcessTarget, timeout time.Duration,
	here func([]api.ProcessTarget) ([]outcome, error),
	method string, there func([]*Target) proto.Message,
) (*api.ProcessResults, error) {
	if err := checkTargets(op, ts); err != nil {
		return nil, err
	}
	results := make([]api.ProcessResult, len(ts))
	todo := map[id.Node][]int{}
	for i, t := range ts {
		results[i] = api.ProcessResult{Node: l.owner(t.Node, t.PID), PID: t.PID}
		for _, n := range l.nodesOf(t) {
			todo[n] = append(todo[n], i)
		}
	}
	merge := newMerger(results)
	for hops := 0; len(todo) > 0; hops++ {
		nodes := slices.Sorted(maps.Keys(todo))
		outs, errs := make([][]outcome, len(nodes)), make([]error, len(nodes))
		each(ctx, nodes, timeout, func(ctx context.Context, k int, n id.Node) {
			part := make([]api.ProcessTarget, len(todo[n]))
			for j, i := range todo[n] {
				part[j] = ts[i]
			}
			outs[k], errs[k] = l.actNode(ctx, op, n, part, here, method, there)
		})
		next := map[id.Node][]int{}
		for k, n := range nodes {
			for j, i := range todo[n] {
				switch {
				case errs[k] != nil:
					merge.failed(i, reason(n, timeout, errs[k]))
				case outs[k][j].moved == 0:
					merge.done(i, outs[k][j].errno)
				case hops >= maxHops:
					merge.failed(i, fmt.Sprintf("node %d: it moves", n))
				default:
					results[i].Node = outs[k][j].moved
					next[outs[k][j].moved] = append(next[outs[k][j].moved], i)
				}
			}
		}
		todo = next
	}
	return &api.ProcessResults{Results: results}, nil
}

// maxHops is how often a target is followed to where it lives.
const maxHops = 2

// nodesOf is where a target is: a process at home, a group anywhere.
func (l *Local) nodesOf(t api.ProcessTarget) []id.Node {
	if t.Node == 0 && t.PID < 0 && (-t.PID).Home() != 0 {
		if all, err := l.choose("", 0); err == nil {
			return all
		}
	}
	return []id.Node{l.owner(t.Node, t.PID)}
}

// merger makes one result of those of several nodes: a group was reached if one of them reached a member; else what
// counts is a node that did not answer, then the error of a member, then that there are none.
type merger struct {
	results []api.ProcessResult
	known   []bool
	ok      []bool
}

func newMerger(results []api.ProcessResult) *merger {
	return &merger{results, make([]bool, len(results)), make([]bool, len(results))}
}

func (m *merger) failed(i int, why string) {
	if r := &m.results[i]; !m.ok[i] && r.Error == "" {
		r.Errno, r.Error = 0, why
	}
	m.known[i] = true
}

func (m *merger) done(i int, e syscall.Errno) {
	r := &m.results[i]
	switch {
	case e == 0:
		m.ok[i], r.Errno, r.Error = true, 0, ""
	case m.ok[i] || r.Error != "":
	case !m.known[i] || r.Errno == unix.ESRCH:
		r.Errno = e
	}
	m.known[i] = true
}

func (l *Local) actNode(ctx context.Context, op string, n id.Node, ts []api.ProcessTarget,
	here func([]api.ProcessTarget) ([]outcome, error),
	method string, there func([]*Target) proto.Message,
) ([]outcome, error) {
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
	return outcomes(op, n, &rep, len(ts))
}
