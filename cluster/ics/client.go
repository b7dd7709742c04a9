package ics

import (
	"context"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/metadata"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// newClient makes the gRPC client for a peer. It connects at the first call.
func (p *peer) newClient() *grpc.ClientConn {
	cc, err := grpc.NewClient("passthrough:///"+p.node.String(),
		grpc.WithTransportCredentials(ready{}),
		grpc.WithContextDialer(p.dialCalls),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: backoffMin, Multiplier: 1.6, Jitter: 0.2, MaxDelay: p.t.limits.BackoffMax},
			MinConnectTimeout: p.t.limits.DialTimeout,
		}),
		grpc.WithStaticStreamWindowSize(streamWindow),
		grpc.WithStaticConnWindowSize(connWindow),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxCall), grpc.MaxCallSendMsgSize(MaxCall)),
	)
	if err != nil {
		panic("ics: gRPC refuses its options: " + err.Error()) // they are constants of this file
	}
	return cc
}

func (p *peer) dialCalls(ctx context.Context, _ string) (net.Conn, error) {
	c, err := p.t.dial(ctx, p, protoICS, hello{})
	if err != nil {
		p.dialErr.Store(&err)
		return nil, err
	}
	p.dialErr.Store(nil)
	return c, nil
}

// Peer is the connection for calls to a node, this one too. It is cheap and may
// be asked for each call or kept. Errors of calls are *errno.Error.
func (t *Transport) Peer(n id.Node) grpc.ClientConnInterface { return caller{t, n} }

type caller struct {
	t *Transport
	n id.Node
}

// start is what all calls have in common: may the peer be called, who calls,
// and the end of the call with the peer's life. stop must be called.
func (c caller) start(ctx context.Context, method string) (_ context.Context, p *peer, l *life, stop func(), err error) {
	p = c.t.peerOf(c.n)
	if p == nil {
		err := errno.New(errno.Unavailable, "", c.n, "no such node, or the daemon is stopping")
		return nil, nil, nil, nil, withOp(err, opOf(method), c.n)
	}
	l, err = p.reachable(c.t.control(method))
	if err != nil {
		return nil, nil, nil, nil, withOp(err, opOf(method), c.n)
	}
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, headerKey, l.header))
	unhook := context.AfterFunc(l.ctx, cancel)
	return ctx, p, l, func() { unhook(); cancel() }, nil
}

// Invoke makes a unary call; without a deadline it gets Limits.CallTimeout.
func (c caller) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.t.limits.CallTimeout)
		defer cancel()
	}
	ctx, p, l, stop, err := c.start(ctx, method)
	if err != nil {
		return err
	}
	defer stop()
	return p.fromStatus(p.cc.Invoke(ctx, method, args, reply, opts...), method, l)
}

// NewStream opens a streaming call. It lives until it is read to its end, ctx
// ends or the peer leaves; the wait for a connection is bounded.
func (c caller) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, p, l, stop, err := c.start(ctx, method)
	if err != nil {
		return nil, err
	}
	// NewStream returns as soon as there is a connection; only that is timed.
	timer := time.AfterFunc(c.t.limits.CallTimeout, stop)
	s, err := p.cc.NewStream(ctx, desc, method, opts...)
	if !timer.Stop() && err != nil {
		err = errno.New(errno.Timeout, opOf(method), c.n, "no connection within %v: %w", c.t.limits.CallTimeout, err)
	}
	if err != nil {
		stop()
		return nil, p.fromStatus(err, method, l)
	}
	cs := &clientStream{ClientStream: s, p: p, l: l, method: method, single: !desc.ServerStreams, stop: sync.OnceFunc(stop)}
	context.AfterFunc(ctx, cs.stop)
	return cs, nil
}

// clientStream translates errors and lets go of the peer's life at the end.
type clientStream struct {
	grpc.ClientStream
	p      *peer
	l      *life
	method string
	single bool // the server sends one reply
	stop   func()
}

func (s *clientStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil {
		err = s.p.fromStatus(err, s.method, s.l)
	}
	if err != nil || s.single {
		s.stop()
	}
	return err
}

func (s *clientStream) SendMsg(m any) error {
	return s.p.fromStatus(s.ClientStream.SendMsg(m), s.method, s.l)
}

func (s *clientStream) Header() (metadata.MD, error) {
	md, err := s.ClientStream.Header()
	return md, s.p.fromStatus(err, s.method, s.l)
}
