package ics

import (
	"context"
	"encoding/binary"

	"google.golang.org/protobuf/proto"
)

// callWire is the writing side of a connection for calls, of client and server.
type callWire struct {
	t   *Transport
	c   *conn
	out *eager
}

// newCallWire takes a connection that had its hello.
func (t *Transport) newCallWire(c *conn) callWire {
	out := newEager(c.raw, t.spawn, func(err error) { c.abort(c.explain(err)) })
	if c.sock != nil {
		c.sock.Conn = out
	} else {
		t.mu.Lock()
		c.Conn = out // this node itself: no TLS
		t.mu.Unlock()
	}
	return callWire{t: t, c: c, out: out}
}

// room waits until there is room for a frame, and no longer than ctx or until
// stop, a deadline, which may be nil.
func (w callWire) room(ctx context.Context, stop <-chan struct{}) error {
	for full := w.out.full(); full != nil; full = w.out.full() {
		select {
		case <-full:
		case <-ctx.Done():
			return ctx.Err()
		case <-stop:
			return context.DeadlineExceeded
		}
	}
	return nil
}

// frame begins a frame in a buffer that post takes back.
func (w callWire) frame(kind byte, call uint64) *[]byte {
	b, ok := w.t.buffers.Get().(*[]byte)
	if !ok {
		b = new([]byte)
	}
	*b = startFrame((*b)[:0], kind, call)
	return b
}

func (w callWire) putBack(b *[]byte) {
	if cap(*b) <= maxFrameKept {
		w.t.buffers.Put(b)
	}
}

// message makes a frame with a message.
func (w callWire) message(kind byte, call uint64, m proto.Message) (*[]byte, error) {
	b := w.frame(kind, call)
	if m == nil {
		return b, nil
	}
	var err error
	if *b, err = appendMessage(*b, m); err != nil {
		w.putBack(b)
		return nil, err
	}
	return b, nil
}

// post sends a frame, all of it or none; a failure ends the connection.
func (w callWire) post(b *[]byte) error {
	endFrame(*b)
	_, err := w.c.Write(*b)
	w.putBack(b)
	if err != nil {
		w.c.abort(err)
	}
	return err
}

func (w callWire) postCancel(call uint64) { _ = w.post(w.frame(kindCancel, call)) } // a failure ends the call too

func (w callWire) postCredit(call uint64, n int) {
	b := w.frame(kindCredit, call)
	*b = binary.BigEndian.AppendUint32(*b, uint32(n))
	_ = w.post(b) // a failure ends the call too
}
