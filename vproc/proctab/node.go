package proctab

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"ssi/cluster/ics"
	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// batchSize is how many processes go into one message. With MaxArgs each a batch
// stays under 1 MiB between nodes and, with every byte escaped, under
// api.MaxMessage at the local socket.
const batchSize = 128

// The methods of the service Processes (processes.proto).
const (
	methodList   = "ssi.vproc.Processes/List"
	methodSignal = "ssi.vproc.Processes/Signal"
	methodRenice = "ssi.vproc.Processes/Renice"
	methodWhere  = "ssi.vproc.Processes/Where"
	methodLoads  = "ssi.vproc.Processes/Loads"
)

// Service is what other nodes may ask; see processes.proto.
type Service interface {
	List(ctx context.Context, req *ListRequest, send func(*ListReply) error) error
	Signal(ctx context.Context, req *SignalRequest) (*ActReply, error)
	Renice(ctx context.Context, req *ReniceRequest) (*ActReply, error)
	Where(ctx context.Context, req *WhereRequest) (*WhereReply, error)
	Loads(ctx context.Context, req *LoadsRequest) (*LoadMessage, error)
}

// Handlers is where a service is registered: ics.Transport.
type Handlers interface {
	Handle(method string, h ics.Handler)
	HandleStream(method string, h ics.StreamHandler)
}

// Register lets other nodes ask s.
func Register(h Handlers, s Service) {
	h.HandleStream(methodList, ics.Streaming(s.List))
	h.Handle(methodSignal, ics.Unary(s.Signal))
	h.Handle(methodRenice, ics.Unary(s.Renice))
	h.Handle(methodWhere, ics.Unary(s.Where))
	h.Handle(methodLoads, ics.Unary(s.Loads))
}

// Node answers for the processes of this node. It is the Service of its node.
type Node struct {
	reader *Reader
	load   *loadMeter
}

// NewNode makes the service of node self over the proc(5) mounted at root
// ("/proc"), and starts to measure its load. places may be nil: then every process is what it
// seems. The caller must close it.
func NewNode(root string, self id.Node, places Places) (*Node, error) {
	r, err := NewReader(root, self)
	if err != nil {
		return nil, err
	}
	r.places = places
	return &Node{reader: r, load: newLoadMeter(r, root)}, nil
}

// Close ends the measuring and releases the directory; no call may be running.
func (n *Node) Close() error {
	n.load.close()
	return n.reader.Close()
}

// List implements the service.
func (n *Node) List(ctx context.Context, req *ListRequest, send func(*ListReply) error) error {
	if len(req.GetPids()) > api.MaxPIDs {
		return errno.New(errno.Invalid, "list processes", n.reader.self, "%d processes named; at most %d are possible", len(req.GetPids()), api.MaxPIDs)
	}
	pids := make([]id.PID, len(req.GetPids()))
	for i, p := range req.GetPids() {
		pids[i] = id.PID(p)
	}
	var batch []*ProcessMessage
	err := n.reader.List(pids, req.GetLogin(), func(p *api.Process) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		batch = append(batch, message(p))
		if len(batch) < batchSize {
			return nil
		}
		err := send(&ListReply{Processes: batch})
		batch = nil
		return err
	})
	if err != nil {
		return err
	}
	l, err := n.load.read()
	if err != nil {
		return err
	}
	return send(&ListReply{Processes: batch, Load: loadMessage(l), Moved: n.reader.moved(pids)})
}

// Signal implements the service.
func (n *Node) Signal(_ context.Context, req *SignalRequest) (*ActReply, error) {
	who, err := credentials("signal", req.GetCaller())
	if err != nil {
		return nil, err
	}
	ts := targets(req.GetTargets())
	if err := errors.Join(checkTargets("signal", ts), checkSignal(int(req.GetSignal()))); err != nil {
		return nil, err
	}
	return reply(n.reader.signal(who, ts, int(req.GetSignal())))
}

// Renice implements the service.
func (n *Node) Renice(_ context.Context, req *ReniceRequest) (*ActReply, error) {
	who, err := credentials("renice", req.GetCaller())
	if err != nil {
		return nil, err
	}
	ts := targets(req.GetTargets())
	if err := checkTargets("renice", ts); err != nil {
		return nil, err
	}
	return reply(n.reader.renice(who, ts, int(req.GetNice())))
}

// Where implements the service.
func (n *Node) Where(_ context.Context, req *WhereRequest) (*WhereReply, error) {
	exists, moved := n.exists(id.PID(req.GetPid()))
	return &WhereReply{Exists: exists, Moved: uint32(moved)}, nil
}

// exists reports whether a process has this PID here, or on which other node it
// lives. Zombies do exist.
func (n *Node) exists(pid id.PID) (here bool, moved id.Node) {
	if moved = n.reader.lives(pid); moved != 0 {
		return false, moved
	}
	return pid > 0 && !n.reader.hidden(pid) && !errors.Is(unix.Kill(int(pid), 0), unix.ESRCH), 0
}

// Loads implements the service.
func (n *Node) Loads(context.Context, *LoadsRequest) (*LoadMessage, error) {
	l, err := n.load.read()
	if err != nil {
		return nil, fmt.Errorf("loads: %w", err)
	}
	return loadMessage(l), nil
}
