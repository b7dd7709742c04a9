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
	"ssi/internal/proc"
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
	number byte    // with a terminal: of the last kindContinue that made a stopped command go on
	front  bool    // where the command was told to be: in the foreground of its terminal

	wmu     sync.Mutex           // writes to conn
	placed  bool                 // the command has this process's PID, parent, process group and session
	ignored map[unix.Signal]bool // what this process ignored at first; of a surrogate
	jobStop bool                 // the terminal has stopped this process's group; the command may follow
	credit  *credit
	events  chan event
	leaving chan struct{}  // closed when run ends
	cont    chan os.Signal // SIGCONT, of capacity 1
	stopped int            // stops of the command that this process caused: not to be followed again
}

// event is what the command's side tells the goroutine of run.
type event struct {
	kind   kind
	sig    unix.Signal // kindStopped: by this
	number byte        // kindStopped: with a terminal the last kindContinue before it, else the stop's own
	status ExitStatus
	err    error // kindError: why it ended
}

func newCaller(o *Options) *caller {
	s := &caller{o: o, credit: newCredit(), events: make(chan event, 1), leaving: make(chan struct{}), cont: make(chan os.Signal, 1)}
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
	signals, stopSignals, err := s.catchSignals()
	if err != nil {
		_ = s.conn.Close()
		in.stop()
		return ExitStatus{Code: 255}, err
	}
	defer stopSignals()
	signal.Notify(s.cont, unix.SIGCONT)
	defer signal.Stop(s.cont)
	if s.term != nil {
		s.place(false)
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

func (s *caller) loop(ctx context.Context, signals <-chan sys.Siginfo) (ExitStatus, error) {
	look := time.NewTimer(lookTime)
	defer look.Stop()
	var moved chan struct{}
	if s.term != nil {
		moved = s.term.moved
	}
	result := (*event)(nil)
	for {
		if s.term == nil || s.front { // who has the terminal loses it by a stop only
			look.Stop()
		} else {
			look.Reset(lookTime)
		}
		select {
		case e := <-s.events:
			switch {
			case e.kind == kindPlaced:
				s.placed = true
			case e.kind == kindStopped && s.stopped > 0:
				s.stopped--
			case e.kind == kindStopped && s.term != nil && e.number != s.number: // it was told to go on since
			case e.kind == kindStopped:
				s.follow(e)
			case e.kind == kindContinued:
				s.send(frame(kindAwake))
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
		case info := <-signals:
			s.signalled(&info)
		case <-s.cont:
			s.proceed(0)
		case <-moved:
			s.place(false)
		case <-look.C:
			s.place(false)
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

// proceed lets the command go on, in the foreground if this process is there. stop
// is the number of the stop after which it shall, 0 for whatever it does.
func (s *caller) proceed(stop byte) {
	if s.term == nil {
		s.send(frame(kindContinue, 0, stop))
		return
	}
	s.place(true)
}

// place makes the terminal raw if this process is in its foreground, and the
// command have its own terminal or not, accordingly. With proceed a command that
// is stopped goes on.
func (s *caller) place(proceed bool) {
	was := s.front
	if s.front = s.term.enter(); proceed || s.front != was {
		var flags byte
		if !s.front {
			flags |= proc.InBackground
		}
		if !proceed {
			flags |= proc.NoSignal
		}
		s.goOn(flags)
	}
	if s.front {
		s.sendSize() // to who has the terminal now
	}
}

// goOn sends kindContinue.
func (s *caller) goOn(flags byte) {
	if flags&proc.NoSignal == 0 {
		s.number++
	}
	s.send(frame(kindContinue, flags, s.number))
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
	case k == kindStopped && len(data) >= 1:
		return event{kind: k, sig: unix.Signal(data[0]), number: data[len(data)-1]}, true
	case k == kindExit && len(data) == 3:
		return event{kind: k, status: ExitStatus{Code: int(data[0]), Signal: unix.Signal(data[1]), Core: data[2] == 1}}, true
	case k == kindClosed || k == kindContinued || k == kindPlaced:
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
