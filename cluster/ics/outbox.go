package ics

import (
	"bufio"
	"context"
	"encoding/binary"
	"sync"
	"time"

	"ssi/internal/id"
)

const (
	backoffMin = 50 * time.Millisecond
	outBuffer  = 32 << 10
)

// outbox is the queue of ssi-raft messages for one peer and the goroutine that
// sends them, over a connection used in this direction only.
type outbox struct {
	p    *peer
	wake chan struct{} // one place: something is in the queue
	now  chan struct{} // one place: try to connect now

	mu      sync.Mutex
	started bool
	queue   [][]byte
	bytes   int
	fresh   bool // something was dropped since the goroutine last told
}

func newOutbox(p *peer) *outbox {
	return &outbox{p: p, wake: make(chan struct{}, 1), now: make(chan struct{}, 1)}
}

// Send queues a message for a node; it never blocks and owns msg from now on.
// Messages arrive in order or not at all: those that do not fit, the oldest
// first, and those for a peer that cannot be reached, are dropped and
// Config.Unreachable is told. Messages to this node itself are dropped.
func (t *Transport) Send(to id.Node, msg []byte) {
	if len(msg) > MaxMessage {
		t.cfg.Log.Error("message dropped: too long", "op", "send", "peer", to, "bytes", len(msg), "limit", MaxMessage)
		return
	}
	if to == t.cfg.Self {
		return
	}
	if p := t.peerOf(to); p != nil {
		p.out.put(msg)
	}
}

func (o *outbox) put(msg []byte) {
	lim := &o.p.t.limits
	o.mu.Lock()
	o.queue = append(o.queue, msg)
	o.bytes += len(msg)
	for len(o.queue) > lim.QueueMessages || o.bytes > lim.QueueBytes && len(o.queue) > 1 {
		o.bytes -= len(o.queue[0])
		o.queue[0] = nil
		o.queue = o.queue[1:]
		o.fresh = true
	}
	start := !o.started
	o.started = true
	o.mu.Unlock()
	signal(o.wake)
	if start {
		o.p.t.spawn(o.run)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (o *outbox) kick() { signal(o.now) }

// take empties the queue; lost says whether messages were dropped since the
// last time.
func (o *outbox) take() (batch [][]byte, lost bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	batch, lost = o.queue, o.fresh
	o.queue, o.bytes, o.fresh = nil, 0, false
	return batch, lost
}

// tell reports that messages were dropped.
func (o *outbox) tell() {
	if f := o.p.t.cfg.Unreachable; f != nil {
		f(o.p.node)
	}
}

func (o *outbox) run() {
	t := o.p.t
	var link *outLink
	pause := backoffMin
	defer func() { link.close() }()
	for {
		select {
		case <-t.ctx.Done():
			return
		case <-link.broken():
			link.close()
			link = nil
			continue
		case <-o.wake:
		}
		if link == nil {
			var err error
			if link, err = o.connect(); err != nil {
				o.take() // they would be stale by the next attempt
				o.tell()
				o.rest(&pause, err)
				continue
			}
			pause = backoffMin
		}
		batch, lost := o.take()
		if lost {
			o.tell()
		}
		if err := link.write(batch, t.limits.MessageTimeout); err != nil {
			link.close()
			link = nil
			o.tell()
		}
	}
}

// rest waits before the next attempt after one that failed with err, longer each
// time, unless told not to.
func (o *outbox) rest(pause *time.Duration, err error) {
	timer := time.NewTimer(*pause)
	defer timer.Stop()
	*pause = min(*pause*2, o.p.longestPause(err))
	select {
	case <-timer.C:
	case <-o.now:
		*pause = backoffMin
	case <-o.p.t.ctx.Done():
	}
}

// outLink is one connection for messages.
type outLink struct {
	c    *conn
	w    *bufio.Writer
	done chan struct{} // closed when the connection ended
}

func (o *outbox) connect() (*outLink, error) {
	ctx, cancel := context.WithTimeout(o.p.t.ctx, o.p.t.limits.MessageTimeout)
	defer cancel()
	c, err := o.p.t.dial(ctx, o.p, protoRaft, hello{})
	if err != nil {
		return nil, err
	}
	l := &outLink{c: c, w: bufio.NewWriterSize(c, outBuffer), done: make(chan struct{})}
	// The peer never writes here: a read that returns is the end. Without it,
	// messages after a restart of the peer would be written into the void.
	go func() {
		defer close(l.done)
		var b [1]byte
		_, _ = c.Read(b[:])
	}()
	return l, nil
}

func (l *outLink) broken() <-chan struct{} {
	if l == nil {
		return nil
	}
	return l.done
}

// write sends a batch as frames and flushes it.
func (l *outLink) write(batch [][]byte, timeout time.Duration) error {
	if err := l.c.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	for _, msg := range batch {
		var head [4]byte
		binary.BigEndian.PutUint32(head[:], uint32(len(msg)))
		if _, err := l.w.Write(head[:]); err != nil {
			return err
		}
		if _, err := l.w.Write(msg); err != nil {
			return err
		}
	}
	return l.w.Flush()
}

// close ends the connection and waits for its reader.
func (l *outLink) close() {
	if l == nil {
		return
	}
	l.c.abort(nil)
	<-l.done
}

// readMessages delivers what a peer sends until the connection ends. A newer
// connection of the same peer takes over from an older one.
func (t *Transport) readMessages(c *conn, from id.Node) {
	defer c.abort(nil)
	p := t.peerOf(from)
	if p == nil || t.messages == nil {
		return
	}
	if old := p.inConn.Swap(c); old != nil {
		old.abort(nil)
	}
	p.reading <- struct{}{} // the older reader ends: its connection is closed
	defer func() { <-p.reading }()
	r := bufio.NewReaderSize(c, outBuffer)
	for {
		msg, err := readFrame(r, MaxMessage)
		if err != nil {
			return // the sender connects again
		}
		t.messages(from, msg)
	}
}
