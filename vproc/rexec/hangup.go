package rexec

import (
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/proc"
)

// hangupTime is how long a command has between SIGHUP and SIGKILL.
const hangupTime = 2 * time.Second

// hangups ends commands whose caller is lost. One goroutine serves all, so that
// the loss of a node with hundreds of commands costs one look at /proc.
type hangups struct {
	log  *slog.Logger
	wake chan struct{} // of capacity 1
	stop chan struct{}
	done chan struct{}

	mu   sync.Mutex
	next []*process // to be sent SIGHUP
}

// doomed is a command that gets SIGKILL at a time, unless it ended.
type doomed struct {
	p  *process
	at time.Time
}

func newHangups(log *slog.Logger) *hangups {
	h := &hangups{log: log, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	go h.run()
	return h
}

// add takes p; its pidfd is closed in the end.
func (h *hangups) add(p *process) {
	h.mu.Lock()
	h.next = append(h.next, p)
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// close sends what is due and waits; what still lives then is killed.
func (h *hangups) close() {
	close(h.stop)
	<-h.done
}

func (h *hangups) run() {
	defer close(h.done)
	var waiting []doomed
	timer := time.NewTimer(0)
	defer timer.Stop()
	for stopping := false; ; {
		waiting = h.begin(waiting)
		now := time.Now()
		for len(waiting) > 0 && (stopping || !now.Before(waiting[0].at)) {
			waiting[0].p.kill()
			_ = waiting[0].p.pidfd.Close()
			waiting = waiting[1:]
		}
		if stopping {
			return
		}
		if len(waiting) > 0 {
			timer.Reset(time.Until(waiting[0].at))
		}
		select {
		case <-h.wake:
		case <-timer.C:
		case <-h.stop:
			stopping = true
		}
	}
}

// begin hangs up what was added since the last call.
func (h *hangups) begin(waiting []doomed) []doomed {
	h.mu.Lock()
	batch := h.next
	h.next = nil
	h.mu.Unlock()
	if len(batch) == 0 {
		return waiting
	}
	sessions := make(map[int32]bool, len(batch))
	for _, p := range batch {
		sessions[p.pid] = true
		p.signal(unix.SIGHUP)
		p.signal(unix.SIGCONT)
		waiting = append(waiting, doomed{p, time.Now().Add(hangupTime)})
	}
	for _, pid := range membersOf(sessions) {
		_ = unix.Kill(pid, unix.SIGHUP)
		_ = unix.Kill(pid, unix.SIGCONT)
	}
	return waiting
}

// membersOf lists the processes of the sessions that are in other process
// groups than their leader's.
func membersOf(sessions map[int32]bool) []int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer func() { _ = dir.Close() }()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil
	}
	var members []int
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if r, ok := proc.RelativesOf(int32(pid)); ok && sessions[r.Session] && r.Group != r.Session {
			members = append(members, pid)
		}
	}
	return members
}
