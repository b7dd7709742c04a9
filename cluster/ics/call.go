package ics

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// Call makes a unary call to a node, this one too; without a deadline in ctx it
// gets Limits.CallTimeout. reply is only written before it returns. Its errors
// are *errno.Error.
func (t *Transport) Call(ctx context.Context, n id.Node, method string, req, reply proto.Message) error {
	left := t.limits.CallTimeout
	var stop chan struct{}
	if deadline, ok := ctx.Deadline(); ok {
		left = time.Until(deadline)
	} else {
		stop = make(chan struct{})
		timer := time.AfterFunc(left, func() { close(stop) })
		defer timer.Stop()
	}
	return t.converse(ctx, n, method, req, milliseconds(left), stop, nil, func(b []byte) error {
		if err := proto.Unmarshal(b, reply); err != nil {
			return errno.New(errno.Unknown, "", n, "answers in words this node does not know (%w): another version?", err)
		}
		return nil
	})
}

// Stream makes a call whose reply is many items and gives each to take, in
// their order and in the caller's goroutine; the memory of an item is take's.
// It returns after the last item, or when take fails (with that error), ctx
// ends, or the peer leaves. The peer waits while take does not return, for the
// items of this call only.
func (t *Transport) Stream(ctx context.Context, n id.Node, method string, req proto.Message, take func(item []byte) error) error {
	var left uint32
	if deadline, ok := ctx.Deadline(); ok {
		left = milliseconds(time.Until(deadline))
	}
	return t.converse(ctx, n, method, req, left, nil, take, func([]byte) error { return nil })
}

// errTaken is a failure of the caller's own function, which stays as it is.
type errTaken struct{ error }

// converse holds one call from its request to its end; take is nil for a unary
// one. stop is its deadline if ctx has none; nil: none.
func (t *Transport) converse(ctx context.Context, n id.Node, method string, req proto.Message, deadline uint32, stop <-chan struct{},
	take, last func([]byte) error,
) error {
	p := t.peerOf(n)
	if p == nil {
		return withOp(errno.New(errno.Unavailable, "", n, "no such node, or the daemon is stopping"), opOf(method), n)
	}
	l, err := p.reachable(t.control(method))
	if err != nil {
		return withOp(err, opOf(method), n)
	}
	if len(method) > maxMethod {
		return errno.New(errno.Invalid, "call", n, "the name of the call has %d bytes; at most %d are possible", len(method), maxMethod)
	}
	cc, cl, err := p.ask(ctx, l, method, req, deadline, stop, take != nil)
	if err == nil {
		err = cc.follow(ctx, l, cl, stop, take, last)
		cc.forget(cl)
	}
	var taken errTaken
	switch {
	case err == nil:
		return nil
	case errors.As(err, &taken):
		return taken.error
	}
	return p.explainCall(err, method, l)
}

// ask sends the request of a call, over a new connection if there is none.
func (p *peer) ask(ctx context.Context, l *life, method string, req proto.Message, deadline uint32, stop <-chan struct{}, stream bool) (*clientConn, *call, error) {
	for {
		cc, err := p.link.get(ctx, l, stop)
		if err != nil {
			return nil, nil, err
		}
		if err := cc.room(ctx, stop); err != nil {
			return nil, nil, contextError(err, p.node)
		}
		cl, ok := cc.begin(stream)
		if !ok {
			p.link.drop(cc) // it ended just now
			continue
		}
		b := cc.frame(kindRequest, cl.number)
		*b = request{
			deadline: deadline, incarnation: p.t.cfg.Incarnation, epoch: l.epoch, to: l.Incarnation, method: method,
		}.append(*b)
		if *b, err = appendMessage(*b, req); err != nil {
			cc.putBack(b)
			cc.unask(cl)
			return nil, nil, err
		}
		_ = cc.post(b) // a failure ends the connection, and the call says so
		return cc, cl, nil
	}
}

// unask takes back a call of which the peer never heard.
func (cc *clientConn) unask(cl *call) {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	delete(cc.calls, cl.number)
}

// follow waits for what comes until the end of the call.
func (cc *clientConn) follow(ctx context.Context, l *life, cl *call, stop <-chan struct{}, take, last func([]byte) error) error {
	taken := 0 // and not yet given back as credit
	for {
		select {
		case <-cl.wake:
		case <-ctx.Done():
			return contextError(ctx.Err(), cc.c.peer)
		case <-stop:
			return contextError(context.DeadlineExceeded, cc.c.peer)
		case <-l.ctx.Done():
			return context.Cause(l.ctx)
		}
		cc.mu.Lock()
		items, ended, reply, err := cl.items, cl.ended, cl.reply, cl.err
		cl.items = nil
		cc.mu.Unlock()
		for _, item := range items {
			if err := take(item); err != nil {
				return errTaken{err}
			}
			if err := ctx.Err(); err != nil {
				return contextError(err, cc.c.peer)
			}
			if taken += costOf(item); taken >= callWindow/4 && !ended {
				cc.grant(cl, taken)
				taken = 0
			}
		}
		switch {
		case err != nil:
			return err
		case ended:
			return last(reply)
		}
	}
}

// grant lets the peer send n more.
func (cc *clientConn) grant(cl *call, n int) {
	cc.mu.Lock()
	cl.window += n
	cc.mu.Unlock()
	for ; n > 0; n -= callWindow { // an item may cost more than the window
		cc.postCredit(cl.number, min(n, callWindow))
	}
}
