package gate

import (
	"context"
	"errors"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/sys"
	"ssi/vproc/call"
)

// caught is one call that waits for its answer.
type caught struct {
	g *Gate
	l *listener
	i int              // its slot
	n sys.Notification // a copy: the caller cannot change it, but the slot is cleared

	mu       sync.Mutex
	answered bool
}

// begin handles the call in slot i, which it frees in the end. It is called by the
// receiver, and does not wait for the caller or another node: what needs that goes
// on in a worker. A call that is handled again has its place: it may be done.
func (g *Gate) begin(l *listener, i int, again bool) {
	c := &caught{g: g, l: l, i: i, n: *g.journal.notification(i)}
	row := g.rows.of(&c.n)
	if row == nil || c.n.TID == 0 { // a filter of another version; a stranger
		c.goOn()
		g.journal.release(i)
		return
	}
	if c.quick(row) {
		g.journal.release(i)
		return
	}
	l.hand(job{c, row, again})
}

// valid tells, by a nil error, that the call still waits: what was found under the
// caller's number was the caller's.
func (c *caught) valid() error { return sys.NotificationValid(c.l.fd, c.n.ID) }

// quick ends a call that needs nothing from its caller, if that can be done at once.
// That is so too for a call with memory that the caller's kernel is to go on with, or
// that fails. It does not ask whether the call still waits: if not, the kernel refuses the answer,
// and nothing else was done with what was found under the caller's number.
func (c *caught) quick(row *call.Call) bool {
	memory := row.Mem[0].Dir != 0
	if c.g.quick == nil || memory && row.Class == call.Always {
		return false
	}
	nested, err := c.l.known.nested(c.n.TID)
	switch {
	case err != nil:
		return false
	case nested: // the numbers it knows are its namespace's own
		c.goOn()
		return true
	}
	f := newFrame(row, &c.n)
	who := call.Caller{Node: c.g.node, TID: int32(c.n.TID)}
	if int32(f.args[row.PID]) == 0 { // it may mean the caller's group
		pgid, err := unix.Getpgid(int(c.n.TID))
		if err != nil {
			return false
		}
		who.PGID = int32(pgid)
	}
	o, ok := c.g.quick(&call.Request{Nr: row.Nr, Args: f.args, Caller: who, Origin: c.origin()})
	if !ok || memory && !o.Continue && o.Reply.Errno == 0 {
		return false
	}
	c.conclude(f, nil, &o)
	if o.File != nil {
		_ = o.File.Close()
	}
	return true
}

// slow does the rest; done is false if the call is left to the next daemon.
func (c *caught) slow(row *call.Call, again bool) (done bool) {
	who, nested, err := c.g.ids.of(c.n.TID)
	switch {
	case c.valid() != nil:
		return true
	case err != nil:
		c.g.log.Error("a caller is not known", "call", row.Name, "error", err)
		c.fail(unix.EAGAIN)
		return true
	case nested:
		c.goOn()
		return true
	case !c.g.enter(who.UID, again):
		c.fail(unix.EAGAIN)
		return true
	}
	defer c.g.leave(who.UID)
	return c.execute(row, who)
}

func (c *caught) origin() call.Origin {
	return call.Origin{Node: c.g.node, Incarnation: c.g.journal.incarnation, Seq: c.g.journal.seq(c.i)}
}

// execute reads what the call needs, asks the handler and answers; done is false if
// the call is left to the next daemon.
func (c *caught) execute(row *call.Call, who call.Caller) (done bool) {
	f := newFrame(row, &c.n)
	m := &taskMemory{tid: int(c.n.TID), proc: "/proc/" + strconv.Itoa(int(c.n.TID)), valid: c.valid}
	var file *os.File
	if row.Nr == call.PidfdSendSignal {
		var ours bool
		var err error
		file, ours, err = callerFile(int(c.n.TID), int32(f.args[0]), c.valid)
		switch {
		case errors.Is(err, errGone):
			return true
		case err != nil:
			c.g.log.Error("a caller's file is not known", "call", row.Name, "error", err)
			c.fail(unix.EAGAIN)
			return true
		case ours:
			c.goOn()
			return true
		}
		defer func() { _ = file.Close() }()
	}
	r, e := f.request(m)
	if c.valid() != nil {
		return true
	}
	if e != 0 {
		c.fail(e)
		return true
	}
	r.Caller, r.File = who, file
	r.Origin = c.origin()
	o := c.ask(r)
	if o.File != nil {
		defer func() { _ = o.File.Close() }()
	}
	if c.g.ctx.Err() != nil {
		return false // it may have failed just because of that
	}
	c.conclude(f, m, &o)
	return true
}

// ask lets the handler decide. If that takes too long the caller is told so.
func (c *caught) ask(r *call.Request) call.Outcome {
	ctx, cancel := context.WithTimeout(c.g.ctx, c.g.limits.time)
	defer cancel()
	late := time.AfterFunc(c.g.limits.time+c.g.limits.late, func() {
		c.g.log.Error("a call takes too long", "call", r.Nr.String(), "after", c.g.limits.time)
		c.fail(unix.ETIMEDOUT)
	})
	defer late.Stop()
	return c.g.handler.Handle(ctx, r)
}

// conclude answers the call with its outcome.
func (c *caught) conclude(f *frame, m memory, o *call.Outcome) {
	switch {
	case o.Continue:
		c.goOn()
		return
	case o.File != nil:
		c.give(o.File, o.CloseOnExec)
		return
	}
	e := o.Reply.Errno
	if e > maxErrno {
		e = unix.EIO
	}
	if we := f.write(m, o.Reply.Out); we != 0 {
		e = we
	}
	c.answer(func() error {
		return sys.AnswerNotification(c.l.fd, c.n.ID, f.result(o.Reply.Ret), e)
	})
}

// maxErrno is MAX_ERRNO of the kernel.
const maxErrno = 4095

// answer calls send, once in the life of the call. The slot stays in use.
func (c *caught) answer(send func() error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answered {
		return
	}
	c.answered = true
	if err := send(); err != nil && !errors.Is(err, unix.ENOENT) {
		c.g.log.Error("a call cannot be answered", "listener", c.l.number, "error", err)
	}
	c.g.journal.clear(c.i)
}

func (c *caught) goOn() {
	c.answer(func() error { return sys.ContinueNotification(c.l.fd, c.n.ID) })
}

func (c *caught) fail(e syscall.Errno) {
	c.answer(func() error { return sys.AnswerNotification(c.l.fd, c.n.ID, 0, e) })
}

// give answers with a file, or with the reason why the caller cannot take it.
func (c *caught) give(f *os.File, closeOnExec bool) {
	c.answer(func() error {
		raw, err := f.SyscallConn()
		if err != nil {
			return errors.Join(err, sys.AnswerNotification(c.l.fd, c.n.ID, 0, unix.EIO))
		}
		var given error
		err = raw.Control(func(fd uintptr) {
			given = sys.AnswerWithFile(c.l.fd, c.n.ID, int(fd), closeOnExec)
		})
		var e syscall.Errno
		switch {
		case err != nil:
			return errors.Join(err, sys.AnswerNotification(c.l.fd, c.n.ID, 0, unix.EIO))
		case errors.As(given, &e) && !errors.Is(given, unix.ENOENT):
			return sys.AnswerNotification(c.l.fd, c.n.ID, 0, e)
		}
		return given
	})
}
