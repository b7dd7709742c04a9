package proctab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// Cluster is what the local side needs to know of the cluster. All methods may
// be called from any goroutine.
type Cluster interface {
	// Self is the number of this node.
	Self() id.Node
	// Nodes is the nodes that are UP, ascending. This node answers for itself
	// even if it is not among them.
	Nodes() []id.Node
	// Call and Stream ask another node (ics.Transport). They end with an error
	// when the node leaves.
	Call(ctx context.Context, n id.Node, method string, req, reply proto.Message) error
	Stream(ctx context.Context, n id.Node, method string, req proto.Message, take func(item []byte) error) error
}

// Local serves the ssi.process methods to the commands of this machine.
type Local struct {
	node    *Node
	cluster Cluster
}

// NewLocal makes the local side; node answers for this node without the network.
func NewLocal(node *Node, cluster Cluster) *Local { return &Local{node: node, cluster: cluster} }

// Register adds the methods to the server of the local socket.
func (l *Local) Register(s interface {
	Handle(method string, h api.Handler)
}) {
	s.Handle(api.ProcessList, l.list)
	s.Handle(api.ProcessSignal, l.signal)
	s.Handle(api.ProcessRenice, l.renice)
	s.Handle(api.ProcessWhere, l.where)
	s.Handle(api.ProcessLoads, l.loads)
}

// nodeTimeout is how long to wait for one node.
func nodeTimeout(ms int) time.Duration {
	if ms <= 0 {
		ms = api.DefaultNodeTimeout
	}
	return time.Duration(min(ms, api.MaxNodeTimeout)) * time.Millisecond
}

// scope is the nodes that a listing goes to.
func (l *Local) scope(op string, n id.Node, local bool) ([]id.Node, error) {
	if local {
		return []id.Node{l.cluster.Self()}, nil
	}
	return l.choose(op, n)
}

// choose is the nodes that a call goes to: n, or with n = 0 all.
func (l *Local) choose(op string, n id.Node) ([]id.Node, error) {
	nodes := l.cluster.Nodes()
	if !slices.Contains(nodes, l.cluster.Self()) {
		nodes = append(slices.Clone(nodes), l.cluster.Self())
		slices.Sort(nodes)
	}
	if n == 0 {
		return nodes, nil
	}
	if !n.Valid() {
		return nil, errno.New(errno.Invalid, op, 0, "%d is not a node number (1 to %d)", n, id.MaxNode)
	}
	if !slices.Contains(nodes, n) {
		return nil, errno.New(errno.Unavailable, op, 0, "node %d is not UP; see `cluster`", n)
	}
	return []id.Node{n}, nil
}

// each calls f for all nodes at once, each with its own deadline, and waits.
func each(ctx context.Context, nodes []id.Node, timeout time.Duration, f func(ctx context.Context, i int, n id.Node)) {
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			f(ctx, i, n)
		})
	}
	wg.Wait()
}

// reason is the line for the user about a node that could not be asked.
func reason(n id.Node, timeout time.Duration, err error) string {
	prefix := fmt.Sprintf("node %d: ", n)
	if errors.Is(err, context.DeadlineExceeded) || errno.Is(err, errno.Timeout) {
		return fmt.Sprintf("%sdid not answer within %v", prefix, timeout)
	}
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	if strings.Contains(text, prefix) {
		return text
	}
	return prefix + text
}

// list serves api.ProcessList. One goroutine a node fills the channel; this one
// writes to the caller.
func (l *Local) list(ctx context.Context, c *api.Call) error {
	var req api.ListProcesses
	if err := c.Params(&req); err != nil {
		return err
	}
	if len(req.PIDs) > api.MaxPIDs {
		return errno.New(errno.Invalid, "list processes", 0, "%d processes named; at most %d are possible", len(req.PIDs), api.MaxPIDs)
	}
	nodes, err := l.scope("list processes", req.Node, req.Local)
	if err != nil {
		return err
	}
	explicit := req.Node != 0 || req.Local // else everything is at its home, or where that says
	if !explicit {
		nodes = homes(nodes, req.PIDs)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timeout := nodeTimeout(req.Timeout)
	batches := make(chan api.ProcessBatch, len(nodes))
	go func() {
		defer close(batches)
		each(ctx, nodes, timeout, func(nctx context.Context, _ int, n id.Node) {
			send := func(n id.Node, b api.ProcessBatch) error {
				b.Node = n
				select {
				case batches <- b:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			req := req
			if !explicit {
				req.PIDs = ofNode(req.PIDs, n)
			}
			moved, err := l.listNode(nctx, n, &req, func(b api.ProcessBatch) error { return send(n, b) })
			if err == nil && !explicit {
				n, err = l.listMoved(nctx, moved, &req, send)
			}
			if err != nil {
				_ = send(n, api.ProcessBatch{Error: reason(n, timeout, err)})
			}
		})
	}()
	for b := range batches {
		if err == nil {
			if err = c.Send(b); err != nil {
				cancel() // and let the goroutines end
			}
		}
	}
	return err
}

// homes leaves only the nodes that can have one of pids; all if pids is empty
// or has a node-local one.
func homes(nodes []id.Node, pids []id.PID) []id.Node {
	if len(pids) == 0 {
		return nodes
	}
	var wanted [id.MaxNode + 1]bool
	for _, p := range pids {
		h := p.Home()
		if h == 0 || h > id.MaxNode {
			return nodes
		}
		wanted[h] = true
	}
	return slices.DeleteFunc(slices.Clone(nodes), func(n id.Node) bool { return !wanted[n] })
}

// ofNode leaves only those that node n can have; all if there are none.
func ofNode(pids []id.PID, n id.Node) []id.PID {
	return slices.DeleteFunc(slices.Clone(pids), func(p id.PID) bool { h := p.Home(); return h != 0 && h <= id.MaxNode && h != n })
}

// listNode lists node n, and tells which of the named processes live elsewhere.
func (l *Local) listNode(ctx context.Context, n id.Node, req *api.ListProcesses, send func(api.ProcessBatch) error) (moved []*Moved, err error) {
	if n == l.cluster.Self() {
		return l.node.reader.moved(req.PIDs), l.listSelf(ctx, req, send)
	}
	pids := make([]int32, len(req.PIDs))
	for i, p := range req.PIDs {
		pids[i] = int32(p)
	}
	got, whole := 0, false
	err = l.cluster.Stream(ctx, n, methodList, &ListRequest{Pids: pids, Login: req.Login}, func(item []byte) error {
		var rep ListReply
		if err := proto.Unmarshal(item, &rep); err != nil {
			return errno.New(errno.Unknown, "list processes", n, "answers in words this node does not know (%w): another version?", err)
		}
		if got += len(rep.GetProcesses()); got > maxProcesses || len(rep.GetProcesses()) > batchSize {
			return errno.New(errno.Full, "list processes", n, "it sends more processes than a node can have")
		}
		b := api.ProcessBatch{Processes: make([]api.Process, len(rep.GetProcesses()))}
		for i, m := range rep.GetProcesses() {
			b.Processes[i] = process(n, m)
		}
		if rep.GetLoad() != nil {
			b.Load = load(n, rep.GetLoad())
			whole = true // nothing comes after it
			if moved = rep.GetMoved(); len(moved) > len(pids) {
				return errno.New(errno.Full, "list processes", n, "it sends more processes than were named")
			}
		}
		return send(b)
	})
	if err == nil && !whole {
		err = errno.New(errno.Other, "list processes", n, "the list ended early")
	}
	return moved, err
}

// listSelf lists this node. It looks at ctx between processes: a read of a file
// of proc(5) has no deadline (maxScans limits how many can hang).
func (l *Local) listSelf(ctx context.Context, req *api.ListProcesses, send func(api.ProcessBatch) error) error {
	var batch []api.Process
	err := l.node.reader.List(req.PIDs, req.Login, func(p *api.Process) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		batch = append(batch, *p)
		if len(batch) < batchSize {
			return nil
		}
		err := send(api.ProcessBatch{Processes: batch})
		batch = nil
		return err
	})
	if err != nil {
		return err
	}
	load, err := l.node.load.read()
	if err != nil {
		return err
	}
	return send(api.ProcessBatch{Processes: batch, Load: load})
}

func (l *Local) where(ctx context.Context, c *api.Call) error {
	var req api.WhereProcess
	if err := c.Params(&req); err != nil {
		return err
	}
	if req.PID <= 0 || req.PID > maxPID {
		return errno.New(errno.Invalid, "where", 0, "%d is not a process ID", req.PID)
	}
	timeout := nodeTimeout(req.Timeout)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	n := l.owner(req.Node, req.PID)
	exists, moved, err := l.existsOn(ctx, n, req.PID, timeout)
	if err == nil && moved != 0 {
		n = moved
		exists, _, err = l.existsOn(ctx, n, req.PID, timeout)
	}
	if err != nil {
		return err
	}
	if !exists {
		return errno.New(errno.NotFound, "where", 0, "no process %d on node %d, where it would be", req.PID, n)
	}
	return c.Reply(api.ProcessPlace{PID: req.PID, Node: n, Home: req.PID.Home()})
}

// existsOn reports whether node n has a process, or where it lives.
func (l *Local) existsOn(ctx context.Context, n id.Node, pid id.PID, timeout time.Duration) (bool, id.Node, error) {
	if _, err := l.choose("where", n); err != nil {
		return false, 0, err
	}
	if n == l.cluster.Self() {
		exists, moved := l.node.exists(pid)
		return exists, moved, nil
	}
	var rep WhereReply
	if err := l.cluster.Call(ctx, n, methodWhere, &WhereRequest{Pid: int32(pid)}, &rep); err != nil {
		return false, 0, errno.New(errno.KindOf(err), "where", 0, "%s", reason(n, timeout, err))
	}
	return rep.GetExists(), id.Node(rep.GetMoved()), nil
}

func (l *Local) loads(ctx context.Context, c *api.Call) error {
	var req api.ListLoads
	if err := c.Params(&req); err != nil {
		return err
	}
	nodes, err := l.scope("loads", req.Node, req.Local)
	if err != nil {
		return err
	}
	return c.Reply(l.Loads(ctx, nodes, nodeTimeout(req.Timeout)))
}

// Loads asks nodes for their loads and returns them in the order of their
// numbers; one that does not answer within timeout has Error set.
func (l *Local) Loads(ctx context.Context, nodes []id.Node, timeout time.Duration) api.Loads {
	out := make([]api.Load, len(nodes))
	each(ctx, nodes, timeout, func(ctx context.Context, i int, n id.Node) {
		got, err := l.loadOf(ctx, n)
		if err != nil {
			got = &api.Load{Node: n, Error: reason(n, timeout, err)}
		}
		out[i] = *got
	})
	slices.SortFunc(out, func(a, b api.Load) int { return cmp.Compare(a.Node, b.Node) })
	return api.Loads{Loads: out}
}

func (l *Local) loadOf(ctx context.Context, n id.Node) (*api.Load, error) {
	if n == l.cluster.Self() {
		return l.node.load.read()
	}
	var m LoadMessage
	if err := l.cluster.Call(ctx, n, methodLoads, &LoadsRequest{}, &m); err != nil {
		return nil, err
	}
	return load(n, &m), nil
}
