package rexec

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/api"
	"ssi/internal/proc"
)

// A waker looks again after wakeFirst, and less and less often up to wakeLast.
const (
	wakeFirst = 2 * time.Millisecond
	wakeLast  = time.Second
)

// waker lets a caller go on that stopped because its command did, when somebody
// else has the command go on, or ends it: a caller that is stopped cannot notice.
type waker struct {
	pid   int
	pidfd *os.File // nil: the caller is not known by a PID here

	mu      sync.Mutex
	running bool          // the goroutine is
	owed    int           // kindContinued that the caller has not answered
	over    bool          // it was told of the end
	changed chan struct{} // of capacity 1: owed is less
	closed  chan struct{}
	wg      sync.WaitGroup
}

// newWaker makes a waker for the caller of call.
func newWaker(call *api.Call) *waker {
	w := &waker{pid: int(call.Peer.PID), changed: make(chan struct{}, 1), closed: make(chan struct{})}
	if w.pid == 0 {
		return w
	}
	if fd, err := call.PeerPidfd(); err == nil { // else it is gone
		w.pidfd = os.NewFile(uintptr(fd), "caller")
	}
	return w
}

// passed is told the kind of each frame to the caller.
func (w *waker) passed(k kind) {
	if w == nil || w.pidfd == nil || k != kindContinued && k != kindExit && k != kindError {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if k == kindContinued {
		w.owed++
	} else {
		w.over = true
	}
	if !w.running {
		w.running = true
		w.wg.Go(w.run)
	}
}

// came is told the kind of each frame from the caller.
func (w *waker) came(k kind) {
	if w == nil || k != kindAwake {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.owed = max(0, w.owed-1)
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// done reports whether the caller knows all that it was told, and then run is over.
// Who was told of the end closes the connection.
func (w *waker) done() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.owed > 0 || w.over {
		return false
	}
	w.running = false
	return true
}

// run continues the caller until it answers.
func (w *waker) run() {
	t := time.NewTimer(0)
	defer t.Stop()
	for pause := wakeFirst; !w.done(); pause = min(2*pause, wakeLast) {
		select {
		case <-w.changed:
			continue
		case <-w.closed:
			return
		case <-t.C:
			t.Reset(pause)
		}
		if r, ok := proc.RelativesOf(int32(w.pid)); ok && r.State == 'T' {
			_ = unix.PidfdSendSignal(int(w.pidfd.Fd()), unix.SIGCONT, nil, 0)
		}
	}
}

// ends reports whether the caller is known and ends within limit: its files are closed
// a moment before.
func (w *waker) ends(limit time.Duration) bool {
	if w.pidfd == nil {
		return false
	}
	p := []unix.PollFd{{Fd: int32(w.pidfd.Fd()), Events: unix.POLLIN}}
	for end := time.Now().Add(limit); ; {
		n, err := unix.Poll(p, int(max(0, time.Until(end).Milliseconds())))
		if err != unix.EINTR {
			return err == nil && n == 1
		}
	}
}

// close ends the waker: the caller has closed the connection.
func (w *waker) close() {
	if w == nil {
		return
	}
	close(w.closed)
	w.wg.Wait()
	if w.pidfd != nil {
		_ = w.pidfd.Close()
	}
}
