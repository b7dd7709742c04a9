package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/errno"
	"ssi/internal/sys"
)

// closeTimeout is how long Close lets callers take to read their last reply.
const closeTimeout = time.Second

// Handler serves one method. It replies through the Call and returns nil, or
// returns the error that the caller gets.
type Handler func(ctx context.Context, c *Call) error

// Peer is who calls, as the kernel tells it.
type Peer struct {
	PID    int32
	UID    uint32
	GID    uint32
	Groups []uint32
}

// Root reports whether the caller has user ID 0.
func (p Peer) Root() bool { return p.UID == 0 }

// Call is one request being served. It is used by one goroutine.
type Call struct {
	Method string
	Peer   Peer
	More   bool // the caller takes a stream

	params   json.RawMessage
	conn     *net.UnixConn
	r        *bufio.Reader
	wantUp   bool
	replied  bool
	upgraded bool
	done     bool // the connection serves no further call
}

// Params decodes the parameters of the call into v.
func (c *Call) Params(v any) error {
	if len(c.params) == 0 {
		return nil
	}
	if err := json.Unmarshal(c.params, v); err != nil {
		return errno.New(errno.Invalid, c.Method, 0, "parameters: %w", err)
	}
	return nil
}

// Reply sends the only or the last reply.
func (c *Call) Reply(v any) error { return c.send(v, false) }

// Send sends one reply of a stream; more follow until Reply, or until the
// handler returns.
func (c *Call) Send(v any) error {
	if !c.More {
		return errno.New(errno.Invalid, c.Method, 0, "this method streams; call it with \"more\"")
	}
	return c.send(v, true)
}

func (c *Call) send(v any, continues bool) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.replied = !continues
	return c.write(reply{Parameters: raw, Continues: continues})
}

func (c *Call) write(rep reply) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(WriteTimeout)); err != nil {
		return err
	}
	return writeMessage(c.conn, rep)
}

// Upgrade agrees to leave the protocol: it sends v and hands over the
// connection, which is closed when the handler returns.
func (c *Call) Upgrade(v any) (net.Conn, error) {
	if !c.wantUp {
		return nil, errno.New(errno.Invalid, c.Method, 0, "call it with \"upgrade\"")
	}
	if err := c.send(v, false); err != nil {
		return nil, err
	}
	c.upgraded = true
	if err := c.conn.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	return &upgraded{UnixConn: c.conn, r: c.r}, nil
}

// Server serves the local socket.
type Server struct {
	log      *slog.Logger
	handlers map[string]Handler // fixed before Serve
	other    Handler            // of methods that have none

	mu    sync.Mutex
	conns map[*net.UnixConn]struct{}
	done  bool

	wg     sync.WaitGroup
	ctx    context.Context
	cancel context.CancelFunc
}

// NewServer makes a server without methods.
func NewServer(log *slog.Logger) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	return &Server{log: log, handlers: map[string]Handler{}, conns: map[*net.UnixConn]struct{}{}, ctx: ctx, cancel: cancel}
}

// Handle adds a method; all are added before Serve.
func (s *Server) Handle(method string, h Handler) { s.handlers[method] = h }

// HandleOther serves the methods that Handle does not name, instead of the error
// that there is no such method.
func (s *Server) HandleOther(h Handler) { s.other = h }

// Serve accepts connections until Close, and then returns nil. It leaves l open:
// another server may go on with it.
func (s *Server) Serve(l *net.UnixListener) error {
	if err := l.SetDeadline(time.Time{}); err != nil {
		return errno.New(errno.Other, "serve the local socket", 0, "%w", err)
	}
	stop := context.AfterFunc(s.ctx, func() { _ = l.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		conn, err := l.AcceptUnix()
		if s.ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return nil
		}
		if err != nil {
			return errno.New(errno.Other, "accept on the local socket", 0, "%w", err)
		}
		if !s.add(conn) {
			_ = conn.Close()
			continue
		}
		s.wg.Go(func() {
			defer s.remove(conn)
			s.serve(conn)
		})
	}
}

func (s *Server) add(conn *net.UnixConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done || len(s.conns) >= MaxConns {
		s.log.Warn("local connection refused", "open", len(s.conns), "limit", MaxConns)
		return false
	}
	s.conns[conn] = struct{}{}
	return true
}

func (s *Server) remove(conn *net.UnixConn) {
	s.mu.Lock()
	delete(s.conns, conn)
	s.mu.Unlock()
	_ = conn.Close()
}

// Close ends every connection and waits for the handlers.
func (s *Server) Close() {
	s.cancel()
	s.mu.Lock()
	s.done = true
	for conn := range s.conns { // a last reply may still be written
		_ = conn.SetReadDeadline(time.Unix(1, 0))
		_ = conn.SetWriteDeadline(time.Now().Add(closeTimeout))
	}
	s.mu.Unlock()
	s.wg.Wait()
}

func (s *Server) serve(conn *net.UnixConn) {
	peer, err := peerOf(conn)
	if err != nil {
		s.log.Warn("local connection", "op", "peer credentials", "err", err)
		return
	}
	r := bufio.NewReader(conn)
	for s.ctx.Err() == nil {
		var req call
		if err := readMessage(r, &req); err != nil {
			if !errors.Is(err, io.EOF) && s.ctx.Err() == nil && !errors.Is(err, unix.ECONNRESET) {
				s.log.Info("local connection ended", "pid", peer.PID, "err", err)
			}
			return
		}
		c := &Call{Method: req.Method, Peer: peer, More: req.More, params: req.Parameters, conn: conn, r: r, wantUp: req.Upgrade}
		if err := s.handle(c, req); err != nil {
			level := slog.LevelInfo
			if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) { // the caller had enough, as `clreg watch | head` does
				level = slog.LevelDebug
			}
			s.log.Log(s.ctx, level, "local call", "op", c.Method, "pid", peer.PID, "err", err)
			return
		}
		if c.done {
			return
		}
	}
}

// handle runs one call; an error means the connection is of no more use.
func (s *Server) handle(c *Call, req call) error {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	h, ok := s.handlers[req.Method]
	switch {
	case ok:
	case s.other != nil:
		h = s.other
	default:
		h = func(context.Context, *Call) error {
			return errno.New(errno.NotFound, "call", 0, "this daemon has no method %q; is it of another version? See `ssi version`", req.Method)
		}
	}
	var hangup chan struct{}
	if c.More { // a stream ends when its reader goes away
		hangup = make(chan struct{})
		go func() {
			defer close(hangup)
			_, _ = c.r.Peek(1)
			cancel()
		}()
	}
	err := h(ctx, c)
	if c.upgraded {
		c.done = true
		return err
	}
	if err != nil && !c.replied {
		raw, merr := json.Marshal(failureOf(err))
		if merr != nil {
			return merr
		}
		err = c.write(reply{Error: errorName, Parameters: raw})
	} else if err == nil && !c.replied {
		err = c.write(reply{})
	}
	if hangup != nil { // the watcher may not outlive the call: a stream is the last call of its connection
		_ = c.conn.SetReadDeadline(time.Unix(1, 0))
		<-hangup
		c.done = true
	}
	return err
}

func peerOf(conn *net.UnixConn) (Peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var p Peer
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return Peer{}, err
	}
	if cerr != nil {
		return Peer{}, cerr
	}
	p = Peer{PID: cred.Pid, UID: cred.Uid, GID: cred.Gid}
	if err := raw.Control(func(fd uintptr) { p.Groups, cerr = sys.PeerGroups(int(fd)) }); err != nil {
		return Peer{}, err
	}
	return p, cerr
}

// PeerPidfd is a pidfd of the caller, which proves whether Peer.PID is still
// the caller (it names the process that connected, alive or not). The caller of
// PeerPidfd closes it.
func (c *Call) PeerPidfd() (int, error) {
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	pidfd, cerr := -1, error(nil)
	if err := raw.Control(func(fd uintptr) {
		pidfd, cerr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	}); err != nil {
		return -1, err
	}
	return pidfd, cerr
}
