package rexec

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/proc"
	"ssi/internal/pty"
)

const (
	failTime  = time.Second      // for a last message to a caller who may not read
	closeTime = 10 * time.Second // for the caller to close after the last frame
)

// command is one command that runs here, for a caller at the other end of conn.
type command struct {
	s    *Server
	from id.Node // the caller's node; 0: this one
	conn net.Conn
	req  *request
	f    files
	p    *process
	in   *queue

	place proc.Place // of its surrogate, which it has; or none

	waker *waker        // of a caller on this node, or nil
	stops atomic.Uint32 // number of the last stop, if there is no terminal; 0: none yet
	going atomic.Bool   // it was continued since then
	told  atomic.Uint32 // number of the last kindContinue
	gone  bool          // the caller was killed, and the command is; of the goroutine of read

	wmu    sync.Mutex
	broken bool // a write failed: the stream is of no more use

	failOnce sync.Once
	failure  *Failure      // why it is ended, once failed is closed
	failed   chan struct{} // closed by fail

	done     chan struct{}  // closed when the connection has ended
	exited   chan struct{}  // closed when the end is being told
	draining *latch         // outputs that may still hold what was written before the end
	outputs  *latch         // outputs that are open
	pumps    sync.WaitGroup // goroutines of the outputs
	others   sync.WaitGroup // the goroutines besides the handler's and outputs
	leader   chan struct{}  // closed when the session leader is gone; at once without one
	refused  *proc.Failure  // of the session leader; read after leader is closed
}

// HandleBulk serves a stream that another node opened with kind Bulk; it
// returns when the command or its caller ended, and closes conn.
func (s *Server) HandleBulk(ctx context.Context, from id.Node, header []byte, conn net.Conn) {
	defer func() { _ = conn.Close() }()
	var req *request
	var err error
	if len(header) > 0 {
		req, err = decodeRequest(header)
	} else {
		_ = conn.SetReadDeadline(time.Now().Add(openTime))
		if req, err = readRequest(conn); err == nil {
			err = conn.SetReadDeadline(time.Time{})
		}
	}
	if err != nil {
		s.log.Warn("remote execution refused", "op", "rexec", "peer", from, "err", err)
		_, _ = conn.Write(lost(errno.Invalid, s.c.Node, "%w", err).frame())
		return
	}
	s.run(ctx, from, req, conn, nil)
}

// run runs one command for the caller at the other end of conn; w is for a caller
// on this node.
func (s *Server) run(ctx context.Context, from id.Node, req *request, conn net.Conn, w *waker) {
	c := &command{
		s: s, from: from, conn: conn, req: req, in: newQueue(), waker: w,
		failed: make(chan struct{}), done: make(chan struct{}), exited: make(chan struct{}), leader: make(chan struct{}),
	}
	f := s.enter(ctx, c, from, &s.commands)
	if f == nil {
		defer s.leave(c, &s.commands)
		f = c.start(ctx)
	}
	if f != nil {
		c.write(f.frame())
		c.lastWords()
		return
	}
	c.serve()
}

// fail ends the command and tells the caller why; it does not block.
func (c *command) fail(f *Failure) {
	c.failOnce.Do(func() {
		c.failure = f
		close(c.failed)
	})
}

// start creates the process.
func (c *command) start(ctx context.Context) *Failure {
	spec := c.req.spec
	spec.Env = setEnv(spec.Env, "SSI_NODE", c.s.c.Node.String())
	if err := c.f.open(c.req); err != nil {
		return lost(errno.Other, c.s.c.Node, "%s: %w", c.req.name(), err)
	}
	ctx, cancel := context.WithTimeout(ctx, spawnTime)
	defer cancel()
	pid, pidfd, err := c.spawn(ctx, &spec)
	c.f.closeChild()
	if err != nil {
		c.f.close()
		return c.s.notStarted(ctx, c.req.name(), err)
	}
	c.p = newProcess(pid, pidfd)
	if c.place.PID != 0 {
		c.p.group = c.place.Group
		c.write(frame(kindPlaced))
	}
	c.s.attach(c.p)
	return nil
}

// attach makes the server know p: it is noted, and its end reported to it.
func (s *Server) attach(p *process) {
	s.note(p)
	s.mu.Lock()
	fenced := s.fenced != ""
	ws, early := s.early.take(p.pid)
	if early = early && !p.alive(); !early {
		s.running[p.pid] = p
		if p.group != 0 {
			s.moved()
		}
	}
	s.mu.Unlock()
	if early {
		p.happened(ws)
		s.unnote(p.pid)
	}
	if fenced { // between enter and now
		p.kill()
	}
}

// serve moves data until the command and its outputs, or the caller, ended.
func (c *command) serve() {
	n := 1
	if c.f.err != nil {
		n = 2
	}
	c.draining, c.outputs = newLatch(n), newLatch(n)
	if c.f.err != nil {
		c.pumps.Go(func() { c.pump(kindStderr, c.f.err) })
	}
	c.pumps.Go(func() { c.pump(kindStdout, c.f.out) })
	if c.f.in != nil {
		c.others.Go(c.feed)
	}
	if c.f.control != nil {
		c.others.Go(c.listenLeader)
	} else {
		close(c.leader)
	}
	c.others.Go(c.watch)
	c.read()
	close(c.done)
	_ = c.conn.Close()
	c.in.close()
	ended := c.gone
	select {
	case <-c.exited:
		ended = true
	default:
	}
	if !ended {
		c.s.hang.add(c.p)
	} else {
		defer func() { _ = c.p.pidfd.Close() }() // the others may use it
	}
	c.f.close() // after the hang-up is on its way; the terminal's own follows
	c.pumps.Wait()
	c.others.Wait()
}

// read takes frames from the caller until the connection ends.
func (c *command) read() {
	r := frameReader{r: c.conn}
	for {
		k, data, err := r.next()
		if err != nil {
			return
		}
		c.waker.came(k)
		switch {
		case k == kindStdin:
			if !c.in.put(data) {
				c.s.log.Warn("caller sends more input than it may", "op", "rexec", "peer", c.from)
				return
			}
		case k == kindStdinEOF:
			c.in.end()
		case k == kindWindow && len(data) == 4 && c.f.term != nil:
			_ = pty.SetSize(c.f.term, binary.BigEndian.Uint16(data), binary.BigEndian.Uint16(data[2:]))
		case k == kindSignal && len(data) == 1 && data[0] > 0 && data[0] <= 64:
			c.signal(unix.Signal(data[0]))
		case k == kindInfo:
			if info, ok := decodeInfo(data); ok {
				c.inform(info)
			}
		case k == kindContinue && len(data) == 2:
			c.told.Store(uint32(data[1]))
			c.proceed(data[0], data[1])
		case k == kindGone && len(data) == 4 && c.place.PID != 0:
			c.s.c.Places.Gone(int32(binary.BigEndian.Uint32(data)))
		case k == kindKilled && c.place.PID != 0:
			c.gone = true
			c.killed()
		}
	}
}

// signal sends sig to the command's process group.
func (c *command) signal(sig unix.Signal) {
	if c.f.control != nil {
		_, _ = c.f.control.Write([]byte{proc.MsgSignal, byte(sig)})
		return
	}
	c.p.signal(sig)
}

// proceed lets the command go on; see proc.MsgContinue.
func (c *command) proceed(flags, number byte) {
	switch {
	case c.f.control != nil:
		_, _ = c.f.control.Write([]byte{proc.MsgContinue, flags, number})
	case c.f.term != nil: // it is placed
		c.front(flags&proc.InBackground != 0)
		if flags&proc.NoSignal == 0 {
			c.p.signal(unix.SIGCONT)
		}
	case flags&proc.NoSignal != 0:
	case number != 0 && (uint32(number) != c.stops.Load() || c.going.Load()): // somebody else was faster
	default:
		c.p.signal(unix.SIGCONT)
	}
}

// listenLeader takes the messages of the session leader.
func (c *command) listenLeader() {
	defer close(c.leader)
	buf := make([]byte, 1+proc.MaxMessage)
	for {
		n, err := c.f.control.Read(buf)
		if err != nil || n == 0 {
			return
		}
		switch m := buf[:n]; {
		case m[0] == proc.MsgStopped && n == 3:
			c.write(frame(kindStopped, m[1], m[2]))
		case m[0] == proc.MsgContinued && n == 1:
			c.write(frame(kindContinued))
		case m[0] == proc.MsgFailed:
			c.refused = proc.DecodeFailure(m[1:])
		}
	}
}

// watch waits for the end of the command and tells it, or for a reason to end it.
func (c *command) watch() {
	ws, ok := c.awaitExit()
	if !ok {
		return
	}
	c.f.expire() // what is still to come belongs to others that hold the files
	if !c.await(c.draining.open) || !c.await(c.leader) {
		return
	}
	close(c.exited) // before the caller can know and close: that is no loss then
	if c.refused != nil {
		c.write(c.s.notStarted(context.Background(), c.req.name(), c.refused).frame())
	} else {
		c.write(exitFrame(ws))
	}
	if c.f.term != nil {
		_ = c.f.term.Close() // the rest of the session is hung up
	}
	if c.await(c.outputs.open) {
		c.write(frame(kindClosed))
		_ = c.conn.SetReadDeadline(time.Now().Add(closeTime))
	}
}

// awaitExit waits for the end of the process, and tells stops on the way.
func (c *command) awaitExit() (unix.WaitStatus, bool) {
	for {
		select {
		case ws := <-c.p.events:
			if ws.Exited() || ws.Signaled() {
				return ws, true
			}
			switch {
			case c.f.control != nil: // the leader tells
			case ws.Stopped() && c.f.term != nil:
				c.write(frame(kindStopped, byte(ws.StopSignal()), byte(c.told.Load())))
			case ws.Stopped():
				number := c.stops.Load()%255 + 1
				c.stops.Store(number)
				c.going.Store(false)
				c.write(frame(kindStopped, byte(ws.StopSignal()), byte(number)))
			case ws.Continued():
				c.going.Store(true)
				c.write(frame(kindContinued))
			}
		case <-c.failed:
			c.giveUp()
			return 0, false
		case <-c.done:
			return 0, false
		}
	}
}

// await waits until reached is closed, unless the command is to be ended or the
// caller is gone.
func (c *command) await(reached <-chan struct{}) bool {
	select {
	case <-reached:
		return true
	case <-c.failed:
		c.giveUp()
	case <-c.done:
	}
	return false
}

// giveUp tells the caller why its command is ended and closes the connection.
func (c *command) giveUp() {
	_ = c.conn.SetWriteDeadline(time.Now().Add(failTime)) // also for a write that is blocked now
	c.write(c.failure.frame())
	_ = c.conn.Close()
}

// write sends one frame.
func (c *command) write(b []byte) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.broken {
		return
	}
	if _, err := c.conn.Write(b); err != nil {
		c.broken = true // the rest of the frame is missing; the reader ends it
		_ = c.conn.SetReadDeadline(time.Unix(1, 0))
	}
	c.waker.passed(kindOf(b))
}

// lastWords waits until the caller has closed, so that closing here does not
// destroy what it has not read yet.
func (c *command) lastWords() {
	_ = c.conn.SetReadDeadline(time.Now().Add(failTime))
	r := frameReader{r: c.conn}
	for {
		if _, _, err := r.next(); err != nil {
			return
		}
	}
}

// latch opens after n times done.
type latch struct {
	n    atomic.Int32
	open chan struct{}
}

func newLatch(n int) *latch {
	l := &latch{open: make(chan struct{})}
	l.n.Store(int32(n))
	return l
}

func (l *latch) done() {
	if l.n.Add(-1) == 0 {
		close(l.open)
	}
}
