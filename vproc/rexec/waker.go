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
	acked   chan struct{} // of capacity 1: the caller knows
	closed  chan struct{}
	wg      sync.WaitGroup
}

// newWaker makes a waker for the caller of call.
func newWaker(call *api.Call) *waker {
	w := &waker{pid: int(call.Peer.PID), acked: make(chan struct{}, 1), closed: make(chan struct{})}
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
	if w.running {
		select {
		case w.acked <- struct{}{}:
		default:
		}
	}
}

// run continues the caller until it answers.
func (w *waker) run() {
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.running = false
		select {
		case <-w.acked:
		default:
		}
	}()
	t := time.NewTimer(0)
	defer t.Stop()
	for pause := wakeFirst; ; pause = min(2*pause, wakeLast) {
		select {
		case <-w.acked:
			return
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
