package gate

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/sys"
)

// retryTime is how long a receiver waits after an error that should not be.
const retryTime = time.Second

// errNobody tells that no process has the filter any more.
var errNobody = errors.New("nobody has the filter")

// listener is one filter's.
type listener struct {
	number  uint64
	file    *os.File // polled; closed when the calls have ended
	raw     syscall.RawConn
	fd      int // of file
	known   known
	jobs    chan job       // closed when the receiver has ended
	idle    atomic.Int32   // workers that wait for a job
	workers sync.WaitGroup // Add only by the receiver
}

// newListener duplicates f, in a form that can be waited for without a thread.
func newListener(f *os.File, number uint64, ids *identities) (*listener, error) {
	l := &listener{number: number, known: known{ids: ids}, jobs: make(chan job)}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var dupErr error
	err = raw.Control(func(fd uintptr) {
		l.fd, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3)
	})
	if err = errors.Join(err, dupErr); err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(l.fd, true); err != nil {
		_ = unix.Close(l.fd)
		return nil, err
	}
	l.file = os.NewFile(uintptr(l.fd), fmt.Sprintf("listener %d", number))
	if err := l.file.SetReadDeadline(time.Time{}); err != nil { // it cannot be polled
		_ = l.file.Close()
		return nil, err
	}
	if l.raw, err = l.file.SyscallConn(); err != nil {
		_ = l.file.Close()
		return nil, err
	}
	return l, nil
}

// next waits for a call and receives it into n, which is zero.
func (l *listener) next(n *sys.Notification) error {
	var result error
	err := l.raw.Read(func(fd uintptr) (done bool) {
		for {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			_, result = unix.Poll(p, 0)
			switch {
			case errors.Is(result, unix.EINTR):
				continue
			case result != nil:
				return true
			case p[0].Revents&unix.POLLIN == 0 && p[0].Revents&unix.POLLHUP != 0:
				result = errNobody
				return true
			case p[0].Revents&unix.POLLIN == 0:
				return false
			}
			// This does not wait: there is no other receiver of this listener.
			result = sys.ReceiveNotification(int(fd), n)
			if !errors.Is(result, unix.ENOENT) && !errors.Is(result, unix.EINTR) {
				return true
			}
		}
	})
	if err != nil {
		return err
	}
	return result
}

// receive handles the calls left, and then receives until the gate is closed or
// nobody has the filter.
func (g *Gate) receive(l *listener, left []int) {
	defer g.receivers.Done()
	for _, i := range left {
		g.begin(l, i, true)
	}
	err := g.receiveAll(l)
	l.known.close()
	close(l.jobs)
	l.workers.Wait()
	g.mu.Lock()
	delete(g.listeners, l.number)
	_ = l.file.Close() // under mu: Close of the gate sets its deadline
	g.mu.Unlock()
	if errors.Is(err, errNobody) && g.gone != nil {
		g.gone(l.number)
	}
}

func (g *Gate) receiveAll(l *listener) error {
	for {
		var i int
		select {
		case i = <-g.journal.free:
		case <-g.ctx.Done():
			return g.ctx.Err()
		}
		g.journal.prepare(i, l.number)
		err := l.next(g.journal.notification(i))
		if g.ctx.Err() != nil && err != nil || errors.Is(err, errNobody) {
			g.journal.release(i)
			return err
		}
		if err != nil { // nothing that a caller can bring about
			g.journal.release(i)
			g.log.Error("the gate cannot receive a call", "listener", l.number, "error", err)
			select {
			case <-time.After(retryTime):
			case <-g.ctx.Done():
				return g.ctx.Err()
			}
			continue
		}
		g.begin(l, i, false)
	}
}
