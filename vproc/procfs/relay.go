package procfs

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"ssi/cluster/ics"
	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// The methods of the service ProcFS (procfs.proto).
const (
	methodPoll  = "ssi.vproc.procfs.ProcFS/Poll"
	methodFetch = "ssi.vproc.procfs.ProcFS/Fetch"
)

// Method is the method of the local socket by which the role mount reaches the role node
// ("upgrade"; then the connection carries Ask and Tell). Only root may call it.
const Method = "ssi.procfs.Connect"

const (
	// maxQuestions is how many questions of a role mount are carried at once.
	maxQuestions = 1024
	// maxWait is how long a question may take. grace is added to what is asked for, so that
	// who asks ends the wait, and knows that it was the time.
	maxWait = 10 * time.Second
	grace   = 200 * time.Millisecond
	// rewatch is after how long files of /proc/cluster that change without a change of the cluster are told.
	rewatch = 2 * time.Second
)

// Service is what other nodes may ask.
type Service interface {
	Poll(ctx context.Context, req *PollRequest) (*PollReply, error)
	Fetch(ctx context.Context, req *FetchRequest) (*FetchReply, error)
}

// Node is the Service of a node.
type Node struct {
	*Publisher
	*Fetcher
}

// NewNode serves the proc(5) at root; see NewPublisher and NewFetcher.
func NewNode(root string, self id.Node, placed, hidden func(id.PID) bool) (*Node, error) {
	p, err := NewPublisher(root, self, placed, hidden)
	if err != nil {
		return nil, err
	}
	f, err := NewFetcher(root)
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return &Node{p, f}, nil
}

// Close closes both; no call may be running.
func (n *Node) Close() error { return errors.Join(n.Publisher.Close(), n.Fetcher.Close()) }

// Register lets other nodes ask s.
func Register(h interface{ Handle(string, ics.Handler) }, s Service) {
	h.Handle(methodPoll, ics.Unary(s.Poll))
	h.Handle(methodFetch, ics.Unary(s.Fetch))
}

// Nodes is the other nodes, and this one.
type Nodes interface {
	// Call asks a node.
	Call(ctx context.Context, n id.Node, method string, req, reply proto.Message) error
	// Watch is the cluster now, the same pointer as long as nothing changed, and a channel that is closed
	// when the nodes change.
	Watch() (*Cluster, <-chan struct{})
}

// Places is where processes live whose PIDs do not tell it.
type Places struct {
	Placed []id.PID           // PIDs of other nodes whose processes live here
	Away   map[id.PID]id.Node // PIDs of this node whose processes live elsewhere, and where
}

// Relay carries the questions of the role mount to the nodes, and the news to it.
type Relay struct {
	nodes Nodes
	log   *slog.Logger

	mu     sync.Mutex
	places *Places
	moved  chan struct{} // closed when places changes
}

// NewRelay makes a relay.
func NewRelay(nodes Nodes, log *slog.Logger) *Relay {
	return &Relay{nodes: nodes, log: log, places: &Places{}, moved: make(chan struct{})}
}

// SetPlaces tells the role mount where processes live now. It does not wait. p must not change any more.
func (y *Relay) SetPlaces(p *Places) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.places = p
	close(y.moved)
	y.moved = make(chan struct{})
}

// watch is what the role mount is told, of which parts, and what is closed when they change.
func (y *Relay) watch() (news *Cluster, of newsOf, changed, moved <-chan struct{}) {
	now, changed := y.nodes.Watch()
	y.mu.Lock()
	p, moved := y.places, y.moved
	y.mu.Unlock()
	news = &Cluster{Self: now.GetSelf(), Up: now.GetUp(), Files: now.GetFiles(), Hidden: now.GetHidden()}
	for _, pid := range p.Placed {
		news.Placed = append(news.Placed, int32(pid))
	}
	for pid, n := range p.Away {
		news.Away = append(news.Away, &Moved{Pid: int32(pid), Node: uint32(n)})
	}
	return news, newsOf{now, p}, changed, moved
}

// newsOf is what news was made of.
type newsOf struct {
	now    *Cluster
	places *Places
}

// Handle serves one role mount: it is the handler of Method.
func (y *Relay) Handle(ctx context.Context, c *api.Call) error {
	if !c.Peer.Root() {
		return errno.New(errno.Permission, c.Method, 0, "only root may")
	}
	conn, err := c.Upgrade(struct{}{})
	if err != nil {
		return err
	}
	return y.serve(ctx, conn)
}

// serve carries questions until the connection or ctx ends.
func (y *Relay) serve(ctx context.Context, conn net.Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	var write sync.Mutex
	tell := func(m *Tell) {
		write.Lock()
		defer write.Unlock()
		_ = conn.SetWriteDeadline(time.Now().Add(writeTime))
		if err := writeFrame(conn, m); err != nil {
			cancel()
		}
	}
	wg.Go(func() {
		again := time.NewTicker(rewatch)
		defer again.Stop()
		var told newsOf
		for {
			news, of, changed, moved := y.watch()
			if of != told {
				tell(&Tell{Cluster: news})
				told = of
			}
			select {
			case <-changed:
			case <-moved:
			case <-again.C:
			case <-ctx.Done():
				return
			}
		}
	})
	slots := make(chan struct{}, maxQuestions)
	r := bufio.NewReader(conn)
	for {
		q := &Ask{}
		if err := readFrame(r, q); err != nil {
			if ctx.Err() != nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		select {
		case slots <- struct{}{}:
		default:
			tell(&Tell{Id: q.GetId(), Error: "too many questions at once"})
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			tell(y.carry(ctx, q))
		})
	}
}

func (y *Relay) carry(ctx context.Context, q *Ask) *Tell {
	wait := min(time.Duration(q.GetTimeoutMs())*time.Millisecond+grace, maxWait)
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	n := id.Node(q.GetNode())
	m := &Tell{Id: q.GetId()}
	var err error
	switch now, _ := y.nodes.Watch(); {
	case !slices.Contains(now.GetUp(), uint32(n)):
		err = errno.New(errno.Unavailable, "ask a node", n, "it is not UP")
	case q.GetPoll() != nil:
		rep := &PollReply{}
		err = y.nodes.Call(ctx, n, methodPoll, q.GetPoll(), rep)
		m.Poll = rep
	case q.GetFetch() != nil:
		rep := &FetchReply{}
		err = y.nodes.Call(ctx, n, methodFetch, q.GetFetch(), rep)
		m.Fetch = rep
	default:
		err = errno.New(errno.Invalid, "ask a node", n, "an empty question")
	}
	if err != nil {
		return &Tell{Id: q.GetId(), Error: err.Error()}
	}
	return m
}
