package ics

import (
	"bufio"
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"ssi/internal/errno"
)

// callReader is how much of a connection for calls is read at once.
const callReader = 4 << 10

// link is the connection for calls to one peer, made when a call needs it.
type link struct {
	p *peer

	mu      sync.Mutex
	cc      *clientConn   // nil: none
	attempt chan struct{} // closed when the attempt to connect ended; nil: none in progress
	err     error         // of the last attempt
	until   time.Time     // calls fail with err before that
	pause   time.Duration // after the next failed attempt
}

// get is the connection; it waits for one attempt to make it. After a failed
// one calls fail for a pause that grows, see peer.longestPause.
func (k *link) get(ctx context.Context, l *life, stop <-chan struct{}) (*clientConn, error) {
	for {
		start := false
		k.mu.Lock()
		if k.cc != nil {
			defer k.mu.Unlock()
			return k.cc, nil
		}
		if k.attempt == nil {
			if k.err != nil && time.Now().Before(k.until) {
				defer k.mu.Unlock()
				return nil, k.err
			}
			k.attempt = make(chan struct{})
			start = true
		}
		attempt := k.attempt
		k.mu.Unlock()
		if start && !k.p.t.spawn(func() { k.connect(attempt) }) {
			return nil, errClosed(k.p.t.cfg.Self) // and so for all later calls
		}
		select {
		case <-attempt:
		case <-ctx.Done():
			return nil, contextError(ctx.Err(), k.p.node)
		case <-stop:
			return nil, contextError(context.DeadlineExceeded, k.p.node)
		case <-l.ctx.Done():
			return nil, context.Cause(l.ctx)
		}
	}
}

// connect makes the connection and reads its answers until it ends.
func (k *link) connect(attempt chan struct{}) {
	t := k.p.t
	c, err := t.dial(t.ctx, k.p, protoICS, hello{})
	var cc *clientConn
	if err == nil {
		cc = newClientConn(k, c)
	}
	k.mu.Lock()
	k.cc, k.attempt, k.err = cc, nil, err
	if err != nil {
		k.until = time.Now().Add(k.pause)
		k.pause = min(k.pause*2, k.p.longestPause(err))
	} else {
		k.pause = backoffMin
	}
	close(attempt)
	k.mu.Unlock()
	if cc != nil {
		c.own(true, nil, cc.end) // from here on: it may have ended already
		cc.read()
	}
}

// kick makes the next call try at once.
func (k *link) kick() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.until, k.pause = time.Time{}, backoffMin
}

func (k *link) drop(cc *clientConn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cc == cc {
		k.cc = nil
	}
}

// clientConn is the client's side of a connection for calls.
type clientConn struct {
	callWire
	link *link

	mu    sync.Mutex
	calls map[uint64]*call
	last  uint64
	dead  error // why it takes no calls any more
}

// call is one call in progress. All but wake is guarded by clientConn.mu.
type call struct {
	number uint64
	wake   chan struct{} // something came
	items  [][]byte      // came and not yet taken
	window int           // what the peer may still send
	stream bool
	ended  bool
	reply  []byte // of the end
	err    error  // of the end
}

func newClientConn(k *link, c *conn) *clientConn {
	return &clientConn{callWire: k.p.t.newCallWire(c), link: k, calls: make(map[uint64]*call)}
}

// begin gives a call its number; false if the connection is over.
func (cc *clientConn) begin(stream bool) (*call, bool) {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	if cc.dead != nil {
		return nil, false
	}
	cc.last++
	cl := &call{number: cc.last, wake: make(chan struct{}, 1), window: callWindow, stream: stream}
	cc.calls[cl.number] = cl
	return cl, true
}

// forget ends a call here; the peer is told if it does not know.
func (cc *clientConn) forget(cl *call) {
	cc.mu.Lock()
	_, inProgress := cc.calls[cl.number]
	delete(cc.calls, cl.number)
	dead := cc.dead != nil
	cc.mu.Unlock()
	if inProgress && !dead {
		cc.postCancel(cl.number)
	}
}

// end fails all calls with the reason of the connection's end.
func (cc *clientConn) end(cause error) {
	if cause == nil {
		cause = errno.New(errno.Unavailable, "", cc.c.peer, "connection lost")
	}
	cc.out.stop(cause)
	cc.mu.Lock()
	cc.dead = cause
	calls := cc.calls
	cc.calls = nil
	for _, cl := range calls {
		cl.ended, cl.err = true, cause
		signal(cl.wake)
	}
	cc.mu.Unlock()
	cc.link.drop(cc)
}

// read deals out what the peer sends until the connection ends.
func (cc *clientConn) read() {
	r := bufio.NewReaderSize(cc.c, callReader)
	for {
		b, err := readFrame(r, maxFrame)
		if err == nil {
			err = cc.take(b)
		}
		if err != nil {
			cc.c.abort(lostError(cc.c, err))
			return
		}
	}
}

// lostError is the reason of a connection's end for its calls.
func lostError(c *conn, err error) error {
	var e *errno.Error
	if errors.As(err, &e) {
		return err
	}
	if errors.Is(err, io.EOF) {
		err = errCut
	}
	return errno.New(errno.Unavailable, "", c.peer, "connection lost: %w", err)
}

// take gives one frame to its call; an error ends the connection.
func (cc *clientConn) take(b []byte) error {
	f, err := decodeFrame(b)
	if err != nil {
		return errProtocol(cc.c.peer, "%v", err)
	}
	cc.mu.Lock()
	defer cc.mu.Unlock()
	if f.call == 0 || f.call > cc.last {
		return errProtocol(cc.c.peer, "an answer to call %d, which nobody made", f.call)
	}
	cl := cc.calls[f.call] // nil: cancelled meanwhile
	switch f.kind {
	case kindItem:
		if cl == nil {
			return nil
		}
		if !cl.stream || cl.window <= 0 {
			return errProtocol(cc.c.peer, "more items than were asked for")
		}
		cl.window -= costOf(f.body)
		cl.items = append(cl.items, f.body)
	case kindReply, kindError:
		if cl == nil {
			return nil
		}
		cl.ended = true
		if f.kind == kindReply {
			cl.reply = f.body
		} else {
			cl.err = fromWire(f.body, cc.c.peer)
		}
		delete(cc.calls, f.call)
	default:
		return errProtocol(cc.c.peer, "a frame of kind %d", f.kind)
	}
	signal(cl.wake)
	return nil
}
