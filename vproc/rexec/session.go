package rexec

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/errno"
	"ssi/internal/pty"
	"ssi/internal/sys"
)

// caller is this process's side of a command that runs. The goroutine of run
// owns it, and waits for the two others: receive and stdin.send.
type caller struct {
	o      *Options
	conn   net.Conn
	stdin  *os.File // nil: Options.Stdin is none
	stdout *os.File
	stderr *os.File
	term   *screen // nil: the command has no terminal

	wmu     sync.Mutex // writes to conn
	credit  *credit
	events  chan event
	leaving chan struct{} // closed when run ends
	stopped int           // stops of the command that this process caused: not to be followed again
}

// event is what the command's side tells the goroutine of run.
type event struct {
	kind   kind
	status ExitStatus
	err    error // kindError: why it ended
}

func newCaller(o *Options) *caller {
	s := &caller{o: o, credit: newCredit(), events: make(chan event, 1), leaving: make(chan struct{})}
	s.stdin, _ = o.Stdin.(*os.File)
	s.stdout, _ = o.Stdout.(*os.File)
	s.stderr, _ = o.Stderr.(*os.File)
	if s.stdin == nil { // also a nil *os.File
		if _, is := o.Stdin.(*os.File); is {
			o.Stdin = nil
		}
	}
	return s
}

// run relays until the command has ended.
func (s *caller) run(ctx context.Context) (ExitStatus, error) {
	in, err := newStdin(s)
	if err != nil {
		_ = s.conn.Close()
		return ExitStatus{Code: 255}, err
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, forwarded()...)
	defer signal.Stop(signals)
	if s.term != nil {
		s.enterTerminal()
		defer s.term.restore()
	}
	var g sync.WaitGroup
	g.Go(s.receive)
	g.Go(in.send)
	defer func() {
		close(s.leaving)
		_ = s.conn.Close()
		s.credit.close()
		in.stop()
		g.Wait()
	}()
	return s.loop(ctx, signals)
}

// lookTime is how often a caller in the background looks whether it came to the
// foreground.
const lookTime = 200 * time.Millisecond

func (s *caller) loop(ctx context.Context, signals chan os.Signal) (ExitStatus, error) {
	look := time.NewTicker(lookTime)
	defer look.Stop()
	if s.term == nil {
		look.Stop()
	}
	result := (*event)(nil)
	for {
		select {
		case e := <-s.events:
			switch {
			case e.kind == kindStopped && s.stopped > 0:
				s.stopped--
			case e.kind == kindStopped:
				s.suspend(0) // the whole process group, as the terminal would have done
			case e.kind == kindExit:
				if !waitsForReaders(s.stdout) {
					return e.status, nil
				}
				result = &e
			case e.kind == kindClosed || result != nil:
				if result != nil {
					return result.status, nil
				}
			case e.kind == kindError:
				return e.status, e.err
			}
		case sig := <-signals:
			s.signalled(sig.(unix.Signal))
		case <-look.C:
			if !s.term.raw.Load() {
				s.enterTerminal()
			}
		case <-ctx.Done():
			return ExitStatus{Code: 255}, context.Cause(ctx)
		}
	}
}

// waitsForReaders reports whether somebody may wait for the end of stdout.
func waitsForReaders(f *os.File) bool {
	if f == nil {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&(os.ModeNamedPipe|os.ModeSocket) != 0
}

// signalled passes a signal on.
func (s *caller) signalled(sig unix.Signal) {
	switch sig {
	case unix.SIGWINCH:
		s.sendSize()
	case unix.SIGCONT:
		s.proceed()
	case unix.SIGTSTP:
		if s.term != nil { // the command's own stop comes back
			s.send(frame(kindSignal, byte(sig)))
			return
		}
		// Without a terminal its process group is orphaned there, and the
		// kernel would ignore SIGTSTP.
		s.stopped++
		s.send(frame(kindSignal, byte(unix.SIGSTOP)))
		s.suspend(unix.Getpid())
	default:
		s.send(frame(kindSignal, byte(sig)))
	}
}

// contTime is how long a stop may take to happen; it does not happen when the
// process group is orphaned.
const contTime = 300 * time.Millisecond

// suspend stops this process, or its process group if pid is 0, and goes on when
// it is continued.
func (s *caller) suspend(pid int) {
	if s.term != nil {
		s.term.restore()
	}
	cont := make(chan os.Signal, 1)
	signal.Notify(cont, unix.SIGCONT)
	defer signal.Stop(cont)
	handler, err := sys.SetAction(unix.SIGTSTP, sys.Action{})
	_ = unix.Kill(pid, unix.SIGTSTP)
	select { // the stop may hit another thread a moment later
	case <-cont:
	case <-time.After(contTime):
	}
	if err == nil {
		_, _ = sys.SetAction(unix.SIGTSTP, handler)
	}
	s.proceed()
}

// proceed lets the command go on.
func (s *caller) proceed() {
	if s.term != nil {
		s.enterTerminal()
	}
	s.send(frame(kindContinue))
}

// enterTerminal makes the terminal raw if this process is in its foreground.
func (s *caller) enterTerminal() {
	if s.term.enter() {
		s.sendSize()
	}
}

func (s *caller) sendSize() {
	if s.term == nil {
		return
	}
	if rows, cols, err := pty.Size(s.term.f); err == nil {
		b := binary.BigEndian.AppendUint16(nil, rows)
		s.send(frame(kindWindow, binary.BigEndian.AppendUint16(b, cols)...))
	}
}

// send sends one frame; the reader notices a lost connection.
func (s *caller) send(b []byte) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	_, _ = s.conn.Write(b)
}

// receive takes frames until the connection ends.
func (s *caller) receive() {
	in := frameReader{r: s.conn}
	for {
		k, data, err := in.next()
		if err != nil {
			s.tell(event{kind: kindError, status: ExitStatus{Code: 255}, err: s.lost(err)})
			return
		}
		if e, ok := s.take(k, data); ok {
			s.tell(e)
		}
	}
}

func (s *caller) tell(e event) {
	select {
	case s.events <- e:
	case <-s.leaving:
	}
}

// take acts on a frame, or makes an event of it.
func (s *caller) take(k kind, data []byte) (event, bool) {
	switch {
	case k == kindStdout:
		return s.output(s.o.Stdout, data)
	case k == kindStderr:
		return s.output(s.o.Stderr, data)
	case k == kindCredit && len(data) == 4:
		s.credit.add(int(binary.BigEndian.Uint32(data)))
	case k == kindStopped && len(data) == 1:
		return event{kind: k}, true
	case k == kindExit && len(data) == 3:
		return event{kind: k, status: ExitStatus{Code: int(data[0]), Signal: unix.Signal(data[1]), Core: data[2] == 1}}, true
	case k == kindClosed:
		return event{kind: k}, true
	case k == kindError:
		f, err := decodeFailure(data)
		if err != nil {
			f = lost(errno.Other, s.o.Node, "%w", err)
		}
		return event{kind: k, status: ExitStatus{Code: f.Status}, err: f}, true
	}
	return event{}, false
}

// output writes what the command wrote. If nobody reads it any more, this
// process ends like one that gets SIGPIPE.
func (s *caller) output(w io.Writer, data []byte) (event, bool) {
	if w == nil {
		return event{}, false
	}
	_, err := w.Write(data)
	if err == nil {
		return event{}, false
	}
	e := event{kind: kindError, status: ExitStatus{Code: 255}, err: lost(errno.Other, 0, "write: %w", err)}
	if errors.Is(err, unix.EPIPE) {
		e.status, e.err = ExitStatus{Signal: unix.SIGPIPE}, nil
	}
	return e, true
}

// lost explains a connection that ended before the command.
func (s *caller) lost(err error) error {
	if errors.Is(err, errFrame) {
		return lost(errno.Other, s.o.Node, "%w", err)
	}
	return lost(errno.Unavailable, 0,
		"the ssi daemon of this machine ended while %s ran on node %s: its result is not known", s.o.Argv[0], s.where())
}

func (s *caller) where() string {
	if s.o.Node == 0 {
		return "here"
	}
	return s.o.Node.String()
}
