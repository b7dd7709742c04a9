package ics

import (
	"bufio"
	"context"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"ssi/internal/errno"
)

// Handler serves a unary call. ctx ends with the call: at its deadline, when
// the caller gives up or leaves, when this node is fenced, and at Close; a
// handler must end soon after. req is the handler's.
type Handler = func(ctx context.Context, req []byte) (proto.Message, error)

// StreamHandler serves a call whose reply is what it sends. send waits while
// the caller does not read and fails when the call is over.
type StreamHandler = func(ctx context.Context, req []byte, send func(proto.Message) error) error

// pointer is a message of protobuf, by its struct type.
type pointer[T any] interface {
	*T
	proto.Message
}

// Unary is the handler of a method with types.
func Unary[T any, P pointer[T], R proto.Message](f func(context.Context, P) (R, error)) Handler {
	return func(ctx context.Context, b []byte) (proto.Message, error) {
		req := P(new(T))
		if err := proto.Unmarshal(b, req); err != nil {
			return nil, errRequest(err)
		}
		return f(ctx, req)
	}
}

// Streaming is the handler of a streaming method with types.
func Streaming[T any, P pointer[T], R proto.Message](f func(ctx context.Context, req P, send func(R) error) error) StreamHandler {
	return func(ctx context.Context, b []byte, send func(proto.Message) error) error {
		req := P(new(T))
		if err := proto.Unmarshal(b, req); err != nil {
			return errRequest(err)
		}
		return f(ctx, req, func(item R) error { return send(item) })
	}
}

func errRequest(err error) error {
	return errno.New(errno.Invalid, "", 0, "a request that this node does not understand (%w): another version?", err)
}

// method is what serves one name; one of the two is set.
type method struct {
	unary  Handler
	stream StreamHandler
}

// Handle sets the handler of a unary method, "package.Service/Method", before
// Serve.
func (t *Transport) Handle(name string, h Handler) { t.handle(name, method{unary: h}) }

// HandleStream sets the handler of a streaming method, before Serve.
func (t *Transport) HandleStream(name string, h StreamHandler) { t.handle(name, method{stream: h}) }

func (t *Transport) handle(name string, m method) {
	if len(name) > maxMethod {
		panic("ics: the name of a call is too long: " + name)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.methods[name] = m
}

// serverConn is the server's side of a connection for calls.
type serverConn struct {
	callWire
	ctx context.Context // ends with the connection
	wg  sync.WaitGroup  // handlers

	mu    sync.Mutex
	calls map[uint64]*serving
	bytes int // of their requests
}

// serving is one call whose handler runs.
type serving struct {
	number  uint64
	size    int // of its request
	control bool
	cancel  context.CancelCauseFunc
	credit  int           // what may still be sent; serverConn.mu
	more    chan struct{} // credit came
}

// serveCalls serves the calls of a connection until it ends.
func (t *Transport) serveCalls(c *conn) {
	ctx, cancel := context.WithCancelCause(t.ctx)
	defer cancel(nil)
	s := &serverConn{callWire: t.newCallWire(c), ctx: ctx, calls: make(map[uint64]*serving)}
	defer s.wg.Wait()
	t.mu.Lock()
	c.calls = s
	t.mu.Unlock()
	c.own(true, nil, func(cause error) {
		if cause == nil {
			cause = errClosed(t.cfg.Self)
		}
		s.out.stop(cause)
		cancel(cause)
	})
	r := bufio.NewReaderSize(c, callReader)
	for {
		b, err := readFrame(r, maxFrame)
		if err == nil {
			err = s.take(b)
		}
		if err != nil {
			c.abort(lostError(c, err))
			return
		}
	}
}

// take deals with one frame; an error ends the connection.
func (s *serverConn) take(b []byte) error {
	f, err := decodeFrame(b)
	if err != nil {
		return errProtocol(s.c.peer, "%v", err)
	}
	switch f.kind {
	case kindRequest:
		return s.start(f)
	case kindCancel:
		if call := s.find(f.call); call != nil {
			call.cancel(context.Canceled)
		}
		return nil
	case kindCredit:
		n, err := decodeCredit(f.body)
		if err != nil {
			return errProtocol(s.c.peer, "%v", err)
		}
		s.give(f.call, n)
		return nil
	}
	return errProtocol(s.c.peer, "a frame of kind %d", f.kind)
}

func (s *serverConn) find(number uint64) *serving {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[number]
}

// give adds credit to a stream, up to a whole window.
func (s *serverConn) give(number uint64, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if call := s.calls[number]; call != nil {
		call.credit = min(call.credit+n, callWindow)
		signal(call.more)
	}
}

// start admits a call and runs its handler.
func (s *serverConn) start(f frame) error {
	req, err := decodeRequest(f.body)
	if err != nil {
		return errProtocol(s.c.peer, "%v", err)
	}
	t := s.t
	t.mu.Lock()
	m, known := t.methods[req.method]
	t.mu.Unlock()
	if !known {
		return s.refuse(f.call, unknownCall(t.cfg.Self, req.method))
	}
	from := Remote{Node: s.c.peer, Role: s.c.role, Incarnation: req.incarnation, Epoch: req.epoch}
	ctx, cancel := context.WithCancelCause(context.WithValue(s.ctx, callerKey{}, from))
	call := &serving{
		number: f.call, size: len(f.body), control: t.control(req.method), cancel: cancel, credit: callWindow, more: make(chan struct{}, 1),
	}
	s.mu.Lock()
	switch {
	case s.calls[f.call] != nil:
		err = errProtocol(s.c.peer, "call %d twice", f.call)
	case len(s.calls) >= t.limits.CallsPerConn:
		err = errno.New(errno.Full, "", t.cfg.Self, "%d calls of node %d are in progress, which is the limit", len(s.calls), s.c.peer)
	case s.bytes+call.size > maxRequests:
		err = errno.New(errno.Full, "", t.cfg.Self, "the calls of node %d in progress have %d MiB, which is the limit", s.c.peer, s.bytes>>20)
	default:
		s.calls[f.call] = call
		s.bytes += call.size
	}
	s.mu.Unlock()
	if err != nil {
		cancel(nil)
		if errno.Is(err, errno.Full) {
			return s.refuse(f.call, err)
		}
		return err
	}
	// A fence ends the calls it finds in the table, so admission comes after.
	if err := t.admit(from, req.to, call.control); err != nil {
		s.done(call)
		return s.refuse(f.call, err)
	}
	s.wg.Go(func() { s.run(ctx, call, m, req) })
	return nil
}

// refuse answers a call without a handler, from the goroutine that reads: who
// asks but does not read answers is not read from.
func (s *serverConn) refuse(number uint64, err error) error {
	if werr := s.room(s.ctx, nil); werr != nil {
		return werr
	}
	return s.fail(number, err)
}

func (s *serverConn) fail(number uint64, err error) error {
	b, merr := s.message(kindError, number, toWire(err, s.t.cfg.Self))
	if merr != nil {
		return merr // cannot be: its texts are bounded and valid
	}
	return s.post(b)
}

// done gives a call's place back.
func (s *serverConn) done(call *serving) {
	s.mu.Lock()
	delete(s.calls, call.number)
	s.bytes -= call.size
	s.mu.Unlock()
	call.cancel(nil)
}

// fence ends what is not exempt.
func (s *serverConn) fence(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, call := range s.calls {
		if !call.control {
			call.cancel(cause)
		}
	}
}

func (s *serverConn) run(ctx context.Context, call *serving, m method, req request) {
	defer s.done(call)
	timeout := time.Duration(req.deadline) * time.Millisecond
	if timeout == 0 && m.unary != nil { // a caller of another make
		timeout = s.t.limits.CallTimeout
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	reply, err := s.invoke(ctx, call, m, req)
	if s.ctx.Err() != nil {
		return // nobody is there to hear it
	}
	if err != nil && errno.Is(context.Cause(ctx), errno.Fenced) {
		err = context.Cause(ctx) // it explains whatever failed under it
	}
	var b *[]byte
	if err == nil {
		b, err = s.message(kindReply, call.number, reply)
	}
	// An answer may wait for room as long as the connection gets rid of bytes.
	if s.room(s.ctx, nil) != nil {
		return
	}
	if err != nil {
		_ = s.fail(call.number, err) // a failure ends the connection
		return
	}
	_ = s.post(b) // likewise
}

// invoke calls the handler; its panic is the failure of this call only.
func (s *serverConn) invoke(ctx context.Context, call *serving, m method, req request) (reply proto.Message, err error) {
	defer func() {
		if r := recover(); r != nil {
			s.t.cfg.Log.Error("a call failed by a bug", "op", opOf(req.method), "peer", s.c.peer, "err", r, "stack", string(debug.Stack()))
			reply, err = nil, errno.New(errno.Other, "", s.t.cfg.Self, "failed by a bug, which is in the log there")
		}
	}()
	if m.unary != nil {
		return m.unary(ctx, req.payload)
	}
	return nil, m.stream(ctx, req.payload, func(item proto.Message) error { return s.send(ctx, call, item) })
}

// send sends one item of a stream when the caller has room for it.
func (s *serverConn) send(ctx context.Context, call *serving, item proto.Message) error {
	b, err := s.message(kindItem, call.number, item)
	if err != nil {
		return err
	}
	if err := s.spend(ctx, call, costOf((*b)[frameHead:])); err != nil {
		s.putBack(b)
		return err
	}
	if err := s.room(ctx, nil); err != nil {
		s.putBack(b)
		return err
	}
	return s.post(b)
}

// spend waits for credit and takes it; the last item may overdraw it.
func (s *serverConn) spend(ctx context.Context, call *serving, cost int) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s.mu.Lock()
		ok := call.credit > 0
		if ok {
			call.credit -= cost
		}
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-call.more:
		case <-ctx.Done():
		}
	}
}
