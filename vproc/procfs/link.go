package procfs

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// maxFrame is how long a message between the roles mount and node may be: an
// answer to Fetch or Poll.
const maxFrame = maxFile + 64<<10

// writeFrame sends a message: its length in 4 bytes, and itself.
func writeFrame(w io.Writer, m proto.Message) error {
	b, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 4, 512), m)
	if err != nil {
		return err
	}
	if len(b)-4 > maxFrame {
		return fmt.Errorf("a message of %d bytes is over the limit of %d", len(b)-4, maxFrame)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	_, err = w.Write(b)
	return err
}

// readFrame reads the next message into m.
func readFrame(r *bufio.Reader, m proto.Message) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return fmt.Errorf("a message of %d bytes is over the limit of %d", n, maxFrame)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	return proto.Unmarshal(b, m)
}

// Link is the connection of the role mount to the role node of this machine. It
// is made again when it is lost; who asks meanwhile waits for that until its
// deadline.
type Link struct {
	dial func(ctx context.Context) (net.Conn, error)
	news func(*Cluster)
	log  *slog.Logger

	mu      sync.Mutex
	conn    net.Conn // nil: not connected
	ready   chan struct{}
	last    uint64
	waiting map[uint64]chan *Tell

	write sync.Mutex // one message at a time; not held together with mu
}

const (
	// redial is the pause between tries to reach the role node.
	redial = 50 * time.Millisecond
	// writeTime is how long the role node may leave questions unread.
	writeTime = 5 * time.Second
)

// errLost ends the questions of a connection that ended.
var errLost = errors.New("the node daemon of this machine is being restarted")

// NewLink makes a link; dial connects to the role node, news is told of the
// cluster, from one goroutine, and must not block. Run does the work.
func NewLink(log *slog.Logger, dial func(ctx context.Context) (net.Conn, error), news func(*Cluster)) *Link {
	return &Link{dial: dial, news: news, log: log, ready: make(chan struct{}), waiting: map[uint64]chan *Tell{}}
}

// Run keeps the link until ctx ends.
func (l *Link) Run(ctx context.Context) {
	told := false
	for ctx.Err() == nil {
		conn, err := l.dial(ctx)
		if err == nil {
			told = false
			err = l.serve(ctx, conn)
		}
		if ctx.Err() != nil {
			return
		}
		if !told { // once per loss
			l.log.Info("no remote processes in /proc until the node daemon is there", "op", "procfs", "err", err)
			told = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(redial):
		}
	}
}

// serve reads from one connection until it ends.
func (l *Link) serve(ctx context.Context, conn net.Conn) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer func() { _ = conn.Close() }()
	l.mu.Lock()
	l.conn = conn
	close(l.ready)
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.conn, l.ready = nil, make(chan struct{})
		for id, c := range l.waiting {
			close(c)
			delete(l.waiting, id)
		}
		l.mu.Unlock()
	}()
	r := bufio.NewReaderSize(conn, 64<<10)
	for {
		m := &Tell{}
		if err := readFrame(r, m); err != nil {
			return err
		}
		if m.GetCluster() != nil {
			l.news(m.GetCluster())
		}
		if m.GetId() == 0 {
			continue
		}
		l.mu.Lock()
		c := l.waiting[m.GetId()]
		delete(l.waiting, m.GetId())
		l.mu.Unlock()
		if c != nil { // else nobody waits any more
			c <- m
		}
	}
}

// ask sends a question and waits for the answer until ctx, which must have a
// deadline, ends. A question that the connection lost is asked again: it changes nothing.
func (l *Link) ask(ctx context.Context, q *Ask) (*Tell, error) {
	for {
		m, err := l.try(ctx, q)
		if !errors.Is(err, errLost) || ctx.Err() != nil {
			return m, err
		}
	}
}

func (l *Link) try(ctx context.Context, q *Ask) (*Tell, error) {
	l.mu.Lock()
	for l.conn == nil {
		ready := l.ready
		l.mu.Unlock()
		select {
		case <-ready:
		case <-ctx.Done():
			return nil, errno.New(errno.Timeout, "ask a node", id.Node(q.GetNode()), "%w: %w", errLost, ctx.Err())
		}
		l.mu.Lock()
	}
	conn := l.conn
	l.last++
	q.Id = l.last
	c := make(chan *Tell, 1)
	l.waiting[q.Id] = c
	l.mu.Unlock()
	if d, ok := ctx.Deadline(); ok {
		q.TimeoutMs = uint32(max(1, time.Until(d).Milliseconds()))
	}
	l.write.Lock()
	_ = conn.SetWriteDeadline(time.Now().Add(writeTime))
	err := writeFrame(conn, q)
	l.write.Unlock()
	if err != nil {
		_ = conn.Close() // serve notices
	}
	select {
	case m, ok := <-c:
		switch {
		case !ok:
			return nil, errLost
		case m.GetError() != "":
			return nil, errno.New(errno.Unavailable, "ask a node", id.Node(q.GetNode()), "%s", m.GetError())
		}
		return m, nil
	case <-ctx.Done():
		l.mu.Lock()
		delete(l.waiting, q.Id)
		l.mu.Unlock()
		return nil, errno.New(errno.Timeout, "ask a node", id.Node(q.GetNode()), "%w", ctx.Err())
	}
}

// Poll asks a node what changed.
func (l *Link) Poll(ctx context.Context, n id.Node, req *PollRequest) (*PollReply, error) {
	m, err := l.ask(ctx, &Ask{Node: uint32(n), Poll: req})
	return m.GetPoll(), err
}

// Fetch reads or writes a file on a node. What is to be written is sent once: if the answer is lost, nobody knows
// what became of it.
func (l *Link) Fetch(ctx context.Context, n id.Node, req *FetchRequest) (*FetchReply, error) {
	if req.GetWhat() == What_WRITE {
		m, err := l.try(ctx, &Ask{Node: uint32(n), Fetch: req})
		return m.GetFetch(), err
	}
	m, err := l.ask(ctx, &Ask{Node: uint32(n), Fetch: req})
	return m.GetFetch(), err
}
