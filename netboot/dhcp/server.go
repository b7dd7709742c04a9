package dhcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	maxQueue   = 1024            // replies that wait for the store
	maxBatch   = 256             // replies of one commit
	commitTime = 5 * time.Second // of one commit
	tick       = time.Second     // from one look for leases that ended to the next
)

// Server is a DHCP server on one interface.
type Server struct {
	cfg   Config
	wire  *wire
	queue chan Decision

	mu   sync.Mutex // around core
	core *Core

	limitMu sync.Mutex
	limit   *limiter
}

// New loads the leases (ctx bounds the time for that) and returns a server, which
// takes over the sockets if there is no error. A server is for one time of being
// in charge: who serves again later makes a new one, which loads what the others
// changed. It opens a packet socket in the network namespace of the calling
// thread. The clock must be right by then: leases have an absolute end.
func New(ctx context.Context, cfg Config, sockets Sockets) (*Server, error) {
	cfg, err := cfg.checked()
	if err != nil {
		return nil, err
	}
	var leases []Lease
	if cfg.Mode == Pool {
		if leases, err = cfg.Store.Load(ctx); err != nil {
			return nil, fmt.Errorf("dhcp: load the leases: %w", err)
		}
	}
	core, err := NewCore(cfg, leases, time.Now())
	if err != nil {
		return nil, err
	}
	w, err := openWire(cfg, sockets)
	if err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, wire: w, core: core, queue: make(chan Decision, maxQueue), limit: newLimiter()}, nil
}

// Close closes the sockets. Serve must have returned.
func (s *Server) Close() error {
	return errors.Join(s.wire.raw.Close(), s.wire.sockets.Close())
}

// Leases returns all leases, in no order.
func (s *Server) Leases() []Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core.Leases()
}

// Serve answers until ctx is done, and returns nil then, or until a socket fails.
// It is called once.
func (s *Server) Serve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, s.interrupt)
	defer stop()
	g.Go(func() error { return s.read(ctx, s.wire.sockets.DHCP, portServer) })
	g.Go(func() error { return s.read(ctx, s.wire.sockets.PXE, portPXE) })
	g.Go(func() error { return s.commit(ctx) })
	if s.cfg.Mode == Pool {
		g.Go(func() error { return s.watch(ctx) })
		g.Go(func() error { return s.search(ctx) })
	}
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// interrupt ends every wait for a packet.
func (s *Server) interrupt() {
	past := time.Unix(1, 0)
	_ = s.wire.sockets.DHCP.SetReadDeadline(past)
	_ = s.wire.sockets.PXE.SetReadDeadline(past)
	_ = s.wire.raw.SetReadDeadline(past)
}

// readError is the error of a reader, or nil if it is to go on: a link that goes
// down comes back, and a port that is unreachable is not ours.
func readError(ctx context.Context, what string, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, unix.ENETDOWN), errors.Is(err, unix.ECONNREFUSED), errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	}
	return fmt.Errorf("dhcp: read from %s: %w", what, err)
}

// read answers the requests of a socket.
func (s *Server) read(ctx context.Context, c *net.UDPConn, port uint16) error {
	buf := make([]byte, maxPacket+1) // one more, so that a longer packet is seen as such
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			if err := readError(ctx, c.LocalAddr().String(), err); err != nil {
				return err
			}
			continue
		}
		s.handle(ctx, buf[:n], port, from)
		if ctx.Err() != nil { // a flood leaves no time for the deadline
			return ctx.Err()
		}
	}
}

// handle answers a packet. What is none for us is dropped in silence: anyone may
// send anything.
func (s *Server) handle(ctx context.Context, b []byte, port uint16, from netip.AddrPort) {
	r, err := ParseRequest(b, port, from)
	if err != nil {
		return
	}
	s.mu.Lock()
	d := s.core.Handle(time.Now(), r)
	s.mu.Unlock()
	s.report(d.Events...)
	switch {
	case len(d.Changes) > 0:
		select {
		case s.queue <- d:
		case <-ctx.Done():
		}
	case d.Reply != nil:
		s.send(d.Reply)
	}
}

// commit commits changes, as many at once as there are, and sends the replies that
// waited for them.
func (s *Server) commit(ctx context.Context) error {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		var batch []Decision
		select {
		case <-ctx.Done():
			return ctx.Err()
		case d := <-s.queue:
			batch = append(batch, d)
		case <-t.C:
			if s.cfg.Mode == Proxy {
				continue
			}
			s.mu.Lock()
			batch = append(batch, s.core.Expire(time.Now()))
			s.mu.Unlock()
		}
		for more := true; more && len(batch) < maxBatch; {
			select {
			case d := <-s.queue:
				batch = append(batch, d)
			default:
				more = false
			}
		}
		s.commitBatch(ctx, batch)
	}
}

func (s *Server) commitBatch(ctx context.Context, batch []Decision) {
	var changes []Change
	for _, d := range batch {
		changes = append(changes, d.Changes...)
	}
	if len(changes) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, commitTime)
	defer cancel()
	if err := s.cfg.Store.Commit(ctx, changes); err != nil {
		// The core has the changes, the store may have them or not. That is safe:
		// nobody was told of an address, so those who asked ask again, and every
		// answer commits its lease anew.
		s.report(Event{Kind: StoreFailed, Err: err})
		return
	}
	for _, d := range batch {
		if d.Reply != nil {
			s.send(d.Reply)
		}
	}
}

func (s *Server) send(r *Reply) {
	if err := s.wire.send(r); err != nil {
		mac, _ := macOf(r.Message.ClientHWAddr)
		s.report(Event{Kind: SendFailed, MAC: mac, Err: fmt.Errorf("send to %v: %w", r.To, err)})
	}
}

func (s *Server) report(events ...Event) {
	if s.cfg.Report == nil {
		return
	}
	for _, e := range events {
		s.limitMu.Lock()
		ok := s.limit.allow(time.Now(), e)
		s.limitMu.Unlock()
		if ok {
			s.cfg.Report(e)
		}
	}
}
