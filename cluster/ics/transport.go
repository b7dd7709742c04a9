package ics

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// Transport is one node's end of the internode communication.
type Transport struct {
	cfg      Config
	limits   Limits
	ctx      context.Context // ends with Close
	stop     context.CancelCauseFunc
	wg       sync.WaitGroup
	gate     *gate
	refusals *refusals
	joins    chan struct{} // one place per join conversation
	turns    turns
	buffers  sync.Pool // of *[]byte: frames of calls on their way out

	messages func(from id.Node, msg []byte)
	join     JoinHandler

	view    atomic.Pointer[view]
	service atomic.Pointer[service]

	mu        sync.Mutex
	closed    bool
	listeners []net.Listener
	peers     map[id.Node]*peer
	conns     map[*conn]struct{}
	bulk      map[string]BulkHandler
	methods   map[string]method
}

// view is the membership as last told.
type view struct {
	set   bool // false until the first SetView
	epoch id.Epoch
}

// service says whether this node serves others; ctx ends with that permission.
type service struct {
	ok  bool
	why string
	ctx context.Context
	end context.CancelCauseFunc
}

// New makes a transport. Set the handlers before
// Serve; Close it in any case.
func New(cfg Config) (*Transport, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Dial == nil {
		cfg.Dial = dialTCP
	}
	t := &Transport{
		cfg:     cfg,
		limits:  cfg.Limits.withDefaults(),
		peers:   make(map[id.Node]*peer),
		conns:   make(map[*conn]struct{}),
		bulk:    make(map[string]BulkHandler),
		methods: make(map[string]method),
	}
	t.ctx, t.stop = context.WithCancelCause(context.Background())
	t.joins = make(chan struct{}, t.limits.Joins)
	t.turns = make(turns, t.limits.BulkProcs)
	t.gate = newGate(t.limits)
	t.refusals = newRefusals(cfg.Log)
	t.view.Store(&view{})
	t.service.Store(t.newService(true, ""))
	return t, nil
}

// HandleMessages sets the receiver of ssi-raft messages, before Serve. It is
// called from one goroutine per peer, owns msg, and must not block.
func (t *Transport) HandleMessages(h func(from id.Node, msg []byte)) { t.messages = h }

// HandleJoin sets who serves joining machines, before Serve. Without it
// ssi-join is refused.
func (t *Transport) HandleJoin(h JoinHandler) { t.join = h }

// HandleBulk sets the handler of bulk streams of a name.
func (t *Transport) HandleBulk(name string, h BulkHandler) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bulk[name] = h
}

// SetView tells what the membership says now: all nodes it knows, including
// those that may only talk (Member false), with their addresses. Nodes not in
// peers are treated as gone. It is never called with an older epoch than
// before. Connections of lives that ended are closed when it returns.
func (t *Transport) SetView(epoch id.Epoch, peers map[id.Node]Peer) {
	var gone []*conn
	var redial []*peer
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return
	}
	t.view.Store(&view{set: true, epoch: epoch})
	for n := range peers {
		if n.Valid() && t.peers[n] == nil {
			t.peers[n] = newPeer(t, n)
		}
	}
	for n, p := range t.peers {
		info, known := peers[n]
		old := p.life.Load()
		next := p.nextLife(old, info, known, epoch)
		p.life.Store(next)
		if next.Addr != old.Addr || !slices.Equal(next.Others, old.Others) || next.ctx != old.ctx || old.Gone && !next.Gone {
			redial = append(redial, p)
		}
		for c := range t.conns {
			if c.peer != n || n == t.cfg.Self {
				continue
			}
			if cause := endOf(c, old, next); cause != nil {
				c.setCause(cause)
				gone = append(gone, c)
			}
		}
		if next.ctx != old.ctx {
			old.end(leftError(n, next))
		}
	}
	t.mu.Unlock()
	for _, c := range gone {
		c.abort(nil)
	}
	for _, p := range redial {
		p.kick()
	}
}

// SetServing fences this node (false) or lifts the fence. A fenced node answers
// calls and streams that are not Control with errno.Fenced and why, and ends
// those in progress; messages keep flowing.
func (t *Transport) SetServing(ok bool, why string) {
	t.mu.Lock()
	old := t.service.Load()
	if ok && old.ok {
		t.mu.Unlock()
		return
	}
	t.service.Store(t.newService(ok, why))
	t.mu.Unlock()
	fenced := errno.New(errno.Fenced, "", t.cfg.Self, "fenced: %s", why)
	old.end(fenced)
	if ok {
		return
	}
	for _, c := range t.connsWhere(func(c *conn) bool { return c.calls != nil }) {
		c.calls.fence(fenced)
	}
	// A stream without a handler yet is caught in runBulk.
	for _, c := range t.connsWhere(func(c *conn) bool { return c.inbound && c.end != nil && !c.control }) {
		c.abort(fenced)
	}
}

func (t *Transport) newService(ok bool, why string) *service {
	s := &service{ok: ok, why: why}
	s.ctx, s.end = context.WithCancelCause(t.ctx)
	return s
}

// Recheck verifies the certificates of all open connections again and ends
// those that are refused now. Call it when a certificate is revoked.
func (t *Transport) Recheck() {
	for _, c := range t.connsWhere(func(c *conn) bool { return c.peer != 0 && len(c.chain) > 0 }) {
		if _, _, err := t.cfg.Credentials.VerifyPeer(c.chain); err != nil {
			t.cfg.Log.Warn("connection ended", "op", "recheck", "peer", c.peer, "err", err)
			c.abort(errno.New(errno.Permission, "", c.peer, "%w", err))
		}
	}
}

// spawn runs f in a goroutine that Close waits for; false if it is too late.
func (t *Transport) spawn(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Go(f)
	return true
}

func (t *Transport) connsWhere(match func(*conn) bool) []*conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	var found []*conn
	for c := range t.conns {
		if match(c) {
			found = append(found, c)
		}
	}
	return found
}

// control reports whether a method or a stream name is exempt from fencing and
// membership.
func (t *Transport) control(name string) bool {
	return slices.ContainsFunc(t.cfg.Control, func(c string) bool {
		return c == name || strings.HasSuffix(c, "/") && strings.HasPrefix(name, c)
	})
}

// admit decides whether this node serves a caller now. to is the incarnation
// the caller means to talk to (0: any).
func (t *Transport) admit(from Remote, to id.Incarnation, control bool) error {
	self := t.cfg.Self
	if control {
		return nil
	}
	if s := t.service.Load(); !s.ok {
		return errno.New(errno.Fenced, "", self, "fenced: %s", s.why)
	}
	if from.Node == self {
		return nil
	}
	if to != 0 && t.cfg.Incarnation != 0 && to != t.cfg.Incarnation {
		return errno.New(errno.Stale, "", self, "the node restarted; node %d does not know yet", from.Node)
	}
	v := t.view.Load()
	if !v.set {
		return errno.New(errno.Unavailable, "", self, "starting, has no view of the cluster yet")
	}
	if from.Epoch > v.epoch {
		return nil // its view is newer than ours
	}
	l := t.lifeOf(from.Node)
	if l == nil || !l.Member {
		return errno.New(errno.Stale, "", self, "node %d is not a member of the cluster (epoch %d)%s", from.Node, v.epoch, causeText(l))
	}
	if l.Incarnation != 0 && from.Incarnation != 0 && l.Incarnation != from.Incarnation {
		return errno.New(errno.Stale, "", self, "node %d rejoined since (epoch %d); this is its earlier life", from.Node, v.epoch)
	}
	return nil
}

// Serve accepts connections from l until Close or until l fails; it returns nil
// after Close. It closes l. It may run for several listeners.
func (t *Transport) Serve(l net.Listener) error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return l.Close()
	}
	t.listeners = append(t.listeners, l)
	t.wg.Add(1)
	t.mu.Unlock()
	defer t.wg.Done()
	return t.accept(l)
}

// Close ends everything and waits for all goroutines, hence for handlers too.
func (t *Transport) Close() error {
	cause := errClosed(t.cfg.Self)
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		t.wg.Wait()
		return nil
	}
	t.closed = true
	listeners, peers := t.listeners, t.peers
	t.mu.Unlock()

	t.stop(cause)
	for _, l := range listeners {
		_ = l.Close() // nothing to do about it; the accept loop ends
	}
	for _, c := range t.connsWhere(func(*conn) bool { return true }) {
		c.abort(cause)
	}
	for _, p := range peers {
		p.life.Load().end(cause)
	}
	t.wg.Wait()
	return nil
}

func errClosed(self id.Node) error {
	return errno.New(errno.Unavailable, "", self, "the node's daemon is stopping")
}
