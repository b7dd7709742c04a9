package pid1

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/keeper"
	"ssi/internal/proc"
)

// answerTime is how long the node role may leave its answers unread.
const answerTime = 5 * time.Second

// request is what the node role, or the role boot, asks of the main loop.
type request struct {
	op  keeper.Op
	arg string
}

// rights are what a role may ask besides keeping files.
type rights int

const (
	keepsFiles    rights = iota // nothing
	runsNode                    // OpEnd, OpRespawn, OpReady; it is told of exits and files
	startsMachine               // OpEnd, OpSwitchRoot, OpWatchdog
)

// may reports whether a role may ask this, and whether its argument is in range.
func (r rights) may(op keeper.Op, arg string) bool {
	switch op {
	case keeper.OpEnd:
		return r != keepsFiles && len(arg) == 1 && arg[0] >= byte(keeper.Halt) && arg[0] <= byte(keeper.Kexec)
	case keeper.OpRespawn, keeper.OpReady:
		return r == runsNode
	case keeper.OpSwitchRoot:
		return r == startsMachine && strings.HasPrefix(arg, "/") && !strings.ContainsRune(arg, 0)
	case keeper.OpWatchdog:
		return r == startsMachine && len(arg) == 4
	}
	return false
}

// link is the connection to one life of the node role, or of a role that only
// leaves files here and takes them again.
type link struct {
	conn     *net.UnixConn
	log      *slog.Logger
	store    *store
	ring     *ring
	requests chan<- request
	rights   rights
	stop     chan struct{}
	wg       sync.WaitGroup
}

// newLink makes the connection and returns the role's end of it.
func newLink(log *slog.Logger, s *store, r *ring, requests chan<- request, may rights) (*link, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "role"), os.NewFile(uintptr(fds[1]), "keeper")
	c, err := net.FileConn(ours)
	_ = ours.Close()
	if err != nil {
		_ = theirs.Close()
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	l := &link{conn: c.(*net.UnixConn), log: log, store: s, ring: r, requests: requests, rights: may, stop: make(chan struct{})}
	l.wg.Go(func() { l.safely("read", l.read) })
	if may == runsNode {
		l.wg.Go(func() { l.safely("report", l.report) })
	}
	return l, theirs, nil
}

// close ends the connection and waits for its goroutines.
func (l *link) close() {
	close(l.stop)
	_ = l.conn.Close()
	l.wg.Wait()
}

func (l *link) safely(op string, f func()) {
	defer func() {
		if p := recover(); p != nil {
			l.log.Error("panic", "op", op, "err", p)
			_ = l.conn.Close() // the role notices, ends, and is started anew
		}
	}()
	f()
}

// read serves requests until the connection ends.
func (l *link) read() {
	buf := make([]byte, keeper.MaxPacket)
	for {
		n, files, err := keeper.Receive(l.conn, buf)
		if err != nil || n == 0 {
			return
		}
		if err := l.serve(buf[:n], files); err != nil {
			if !errors.Is(err, net.ErrClosed) {
				l.log.Error("answer to a role", "op", "keeper", "err", err)
			}
			_ = l.conn.Close()
			return
		}
	}
}

// serve answers one request; it takes files.
func (l *link) serve(b []byte, files []*os.File) error {
	op, arg := keeper.Op(b[0]), string(b[1:])
	defer func() { keeper.CloseAll(files) }()
	result := keeper.Done
	switch {
	case len(arg) > keeper.MaxName:
		result = keeper.BadRequest
	case op == keeper.OpPut && len(files) == 1:
		result = l.store.put(arg, files[0])
		files = nil
		if result == keeper.Done && l.rights == keepsFiles {
			l.ring.tellKept()
		}
	case op == keeper.OpTake:
		var err error
		result = l.store.with(arg, func(fd int) { err = l.answer(keeper.Done, unix.UnixRights(fd)) })
		if result == keeper.Done {
			return err
		}
	case op == keeper.OpNext:
		name := l.store.next(arg)
		if name == "" {
			return l.answer(keeper.NotKept, nil)
		}
		return l.send(append(keeper.Answer(keeper.Done), name...), nil)
	case op == keeper.OpDrop:
		l.store.drop(arg)
	case l.rights.may(op, arg):
		result = l.pass(request{op, arg})
	default:
		result = keeper.BadRequest
	}
	return l.answer(result, nil)
}

func (l *link) pass(r request) keeper.Result {
	select {
	case l.requests <- r:
	case <-l.stop:
	}
	return keeper.Done
}

func (l *link) answer(r keeper.Result, rights []byte) error {
	return l.send(keeper.Answer(r), rights)
}

func (l *link) send(packet, rights []byte) error {
	ctx := time.AfterFunc(answerTime, func() { _ = l.conn.Close() }) // reports share the socket: no write deadline
	defer ctx.Stop()
	_, _, err := l.conn.WriteMsgUnix(packet, rights, nil)
	return err
}

// report sends exit reports, and that other roles left files, until the
// connection ends.
func (l *link) report() {
	var buf []byte
	for {
		exits, dropped, kept := l.ring.take()
		if dropped > 0 {
			l.log.Warn("exit reports dropped: the node role did not take them", "op", "report", "dropped", dropped)
		}
		if kept {
			if _, err := l.conn.Write(keeper.Kept()); err != nil {
				l.ring.put(exits) // for the next life, which looks for files anyway
				return
			}
		}
		for i, e := range exits {
			buf = keeper.AppendExit(buf[:0], e)
			if _, err := l.conn.Write(buf); err != nil {
				l.ring.put(exits[i:]) // for the next life
				return
			}
		}
		if len(exits) > 0 || kept {
			continue // take tells the ring that they were sent
		}
		select {
		case <-l.ring.more:
		case <-l.stop:
			return
		}
	}
}

// tell sends one exit report past the ring, and reports false if it would have to
// wait, or its turn has not come.
func (l *link) tell(e proc.Exit) bool {
	if !l.ring.empty() {
		return false
	}
	raw, err := l.conn.SyscallConn()
	if err != nil {
		return false
	}
	packet := keeper.AppendExit(nil, e)
	werr := raw.Write(func(fd uintptr) bool {
		err = unix.Sendmsg(int(fd), packet, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		return true // never wait
	})
	return werr == nil && err == nil
}
