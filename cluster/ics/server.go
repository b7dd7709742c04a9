package ics

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"ssi/internal/errno"
)

// Flow control windows: fixed, so that gRPC sends no pings to estimate them.
const (
	streamWindow = 1 << 20
	connWindow   = 4 << 20
)

func (t *Transport) newServer() *grpc.Server {
	return grpc.NewServer(
		grpc.Creds(ready{}),
		grpc.ConnectionTimeout(t.limits.Handshake), // for the HTTP/2 preface
		grpc.MaxRecvMsgSize(MaxCall),
		grpc.MaxSendMsgSize(MaxCall),
		grpc.MaxConcurrentStreams(uint32(t.limits.CallsPerConn)),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connWindow),
		grpc.WaitForHandlers(true),
		grpc.UnaryInterceptor(t.serveUnary),
		grpc.StreamInterceptor(t.serveStream),
	)
}

// ready are the transport credentials of connections that had their handshake.
type ready struct{}

type authInfo struct {
	credentials.CommonAuthInfo
	c *conn
}

func (authInfo) AuthType() string { return "ics" }

func (ready) ClientHandshake(_ context.Context, _ string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return ready{}.ServerHandshake(c)
}

func (ready) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	tc, ok := c.(*conn)
	if !ok {
		return nil, nil, errno.New(errno.Permission, "", 0, "not a connection of the transport")
	}
	return c, authInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, tc}, nil
}

func (ready) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}
func (ready) Clone() credentials.TransportCredentials { return ready{} }
func (ready) OverrideServerName(string) error         { return nil }

// begin checks a call and prepares the context of its handler, which ends when
// this node is fenced, unless the method is exempt.
func (t *Transport) begin(ctx context.Context, method string) (context.Context, context.CancelFunc, error) {
	from, to, err := callerOf(ctx)
	if err != nil {
		return nil, nil, err
	}
	control := t.control(method)
	s := t.service.Load()
	if err := t.admit(from, to, control); err != nil {
		return nil, nil, err
	}
	ctx = context.WithValue(ctx, callerKey{}, from)
	if control {
		return ctx, func() {}, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) })
	return ctx, func() { stop(); cancel(nil) }, nil
}

// finish is the error of a handler as it leaves: a fence explains whatever
// failed under it.
func (t *Transport) finish(ctx context.Context, err error) error {
	if err != nil && errno.Is(context.Cause(ctx), errno.Fenced) {
		err = context.Cause(ctx)
	}
	return toStatus(err, t.cfg.Self)
}

func (t *Transport) serveUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
	ctx, done, err := t.begin(ctx, info.FullMethod)
	if err != nil {
		return nil, toStatus(err, t.cfg.Self)
	}
	defer done()
	if _, ok := ctx.Deadline(); !ok { // a caller of another make
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.limits.CallTimeout)
		defer cancel()
	}
	resp, err := h(ctx, req)
	return resp, t.finish(ctx, err)
}

// serveStream runs the handler in a goroutine of its own: one that waits for
// the next message of its caller does not look at its context, and a fence must
// not wait for it. Such a handler ends right after, when gRPC ends the stream.
func (t *Transport) serveStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
	s := t.service.Load()
	ctx, done, err := t.begin(ss.Context(), info.FullMethod)
	if err != nil {
		return toStatus(err, t.cfg.Self)
	}
	wrapped := &serverStream{ServerStream: ss, ctx: ctx}
	if t.control(info.FullMethod) {
		defer done()
		return t.finish(ctx, h(srv, wrapped))
	}
	result := make(chan error, 1)
	if !t.spawn(func() { defer done(); result <- h(srv, wrapped) }) {
		done()
		return toStatus(errClosed(t.cfg.Self), t.cfg.Self)
	}
	select {
	case err := <-result:
		return t.finish(ctx, err)
	case <-s.ctx.Done():
		return toStatus(context.Cause(s.ctx), t.cfg.Self)
	}
}

// serverStream is a stream whose handler sees our context.
type serverStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *serverStream) Context() context.Context { return s.ctx }
