package rexec

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/sys"
)

// catchSignals has the signals that go to the command told, beside SIGCONT; those
// that are ignored stay ignored. stop ends that.
func (s *caller) catchSignals() (signals <-chan sys.Siginfo, stop func(), err error) {
	if s.o.Surrogate {
		return s.catchInfo()
	}
	in, out, done := make(chan os.Signal, 64), make(chan sys.Siginfo), make(chan struct{})
	var list []os.Signal
	for _, sig := range forwarded() {
		if !signal.Ignored(sig) {
			list = append(list, sig)
		}
	}
	signal.Notify(in, list...)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case sig := <-in:
				select {
				case out <- sys.Siginfo{Signal: sig.(unix.Signal)}:
				case <-done:
					return
				}
			case <-done:
				return
			}
		}
	}()
	return out, func() { signal.Stop(in); close(done); <-ended }, nil
}

// catchInfo is catchSignals for a process that stands for its command: it takes more
// signals, with their senders.
func (s *caller) catchInfo() (signals <-chan sys.Siginfo, stop func(), err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, nil, fmt.Errorf("signals: %w", err)
	}
	r, w := os.NewFile(uintptr(fds[0]), "signals"), os.NewFile(uintptr(fds[1]), "signals")
	s.ignored = map[unix.Signal]bool{unix.SIGHUP: signal.Ignored(unix.SIGHUP), unix.SIGINT: signal.Ignored(unix.SIGINT)}
	list := append(forwarded(), unix.SIGABRT, unix.SIGCHLD, unix.SIGSTKFLT, unix.SIGPWR,
		unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGSYS)
	for sig := unix.Signal(firstRealTime); sig <= 64; sig++ {
		list = append(list, sig)
	}
	if err := sys.NotifyInfo(w, list); err != nil {
		return nil, nil, fmt.Errorf("signals: %w", err)
	}
	out, done, ended := make(chan sys.Siginfo), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		b := make([]byte, sys.SiginfoSize)
		for {
			if _, err := io.ReadFull(r, b); err != nil {
				return
			}
			select {
			case out <- sys.DecodeSiginfo(b):
			case <-done:
				return
			}
		}
	}()
	// The handlers go on writing to w, which stays open: this process ends soon.
	return out, func() { close(done); _ = r.Close(); <-ended }, nil
}

// firstRealTime is SIGRTMIN of the C library, which keeps two to itself.
const firstRealTime = 34

// forwarded are the signals that go to the command when this process receives
// them, beside SIGCONT.
func forwarded() []unix.Signal {
	return []unix.Signal{
		unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2,
		unix.SIGALRM, unix.SIGVTALRM, unix.SIGPROF, unix.SIGIO, unix.SIGXCPU, unix.SIGXFSZ,
		unix.SIGTSTP, unix.SIGWINCH,
	}
}

// signalled passes a signal on.
func (s *caller) signalled(info *sys.Siginfo) {
	switch sig := info.Signal; {
	case !s.placed && s.ignored[sig]: // the command does not; a placed one knows what to ignore
	case sig == unix.SIGWINCH && (s.term != nil || !s.placed):
		s.sendSize()
	case s.placed || s.o.Surrogate && sig != unix.SIGTSTP:
		s.jobStop = s.jobStop || sig == unix.SIGTSTP && info.Code == sys.CodeKernel
		s.send(infoFrame(info))
	case sig == unix.SIGTSTP && s.term == nil:
		// Without a terminal its process group is orphaned there, and the
		// kernel would ignore SIGTSTP.
		s.stopped++
		s.send(frame(kindSignal, byte(unix.SIGSTOP)))
		s.suspend(false, unix.SIGTSTP)
		s.proceed(0)
	default: // a stop of the command comes back
		s.send(frame(kindSignal, byte(sig)))
	}
}

// contTime is how long a stop may take to happen; it does not happen when the
// process group is orphaned.
const contTime = 300 * time.Millisecond

// follow stops like the command did: with the whole process group, as a terminal
// does it, or alone.
func (s *caller) follow(e event) {
	var group bool
	sig := e.sig
	switch sig {
	case unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
		group = s.term != nil || !s.placed // who stopped a placed one without a terminal stopped the others too, or not
	default:
		group, sig = false, unix.SIGSTOP
	}
	if s.suspend(group && !s.jobStop, sig) || s.term == nil || s.front {
		s.proceed(e.number)
		return
	}
	// The kernel does not stop an orphaned process group: nobody could continue
	// it. The command gets its terminal, so that it does not ask for it again and
	// again, and waits for input that never comes.
	s.front = true
	s.goOn(0)
}

// suspend stops this process, with its process group or alone, and returns when
// it is continued. It returns false if the stop did not happen.
func (s *caller) suspend(group bool, sig unix.Signal) bool {
	s.jobStop = false
	if s.term != nil {
		s.term.restore()
	}
	select {
	case <-s.cont: // of an earlier time
	default:
	}
	if handler, err := sys.SetAction(sig, sys.Ignore()); err == nil { // first the others: a group does not mean a surrogate
		defer func() { _, _ = sys.SetAction(sig, handler) }()
	}
	if group {
		_ = unix.Kill(0, sig)
	}
	_, _ = sys.SetAction(sig, sys.Action{})
	_ = unix.Kill(unix.Getpid(), sig)
	for range 2 { // the stop may hit another thread a moment later, and the first time pass during it
		select {
		case <-s.cont:
			return true
		case <-time.After(contTime):
		}
	}
	return false
}
