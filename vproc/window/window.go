// Package window keeps the PIDs of this node in its window: the processes of
// node n get PIDs from [n<<15, (n+1)<<15), so that a PID tells its home.
//
// The kernel gives out PIDs in rising order and is told where to go on by
// /proc/sys/kernel/ns_last_pid. A watcher rewinds it to the window's start
// before the window's end is reached, margin PIDs early: after the kernel's own
// wrap it would give out low PIDs until the next look. The watcher looks again
// before half of what is left of the window can be used up by all processors: an
// idle node is not woken often. PIDs in use are skipped by the kernel. next and
// pause are the whole decision, and pure.
//
// Watcher has one goroutine, on a thread of its own with real-time priority if
// the kernel allows it; Stop waits for it. There are no locks.
//
// pid_max becomes 4194304, for this PID namespace from Linux 6.14 on and for the
// machine before. The package must never look at another PID namespace; strays
// are counted, not corrected.
package window

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
)

const (
	pidMax = 4194304 // PID_MAX_LIMIT in include/linux/threads.h
	// reserved is RESERVED_PIDS in kernel/pid.c: a window starts as many PIDs
	// later, as PID 300 follows the kernel's own wrap.
	reserved = 300
	margin   = 16384
	spread   = 8192 // a boot begins at any of so many first PIDs
	// rate is how many PIDs a second one processor is reckoned to use up: 67,000
	// clones a second were measured on two.
	rate    = 35_000
	minPoll = 20 * time.Millisecond
	maxPoll = 250 * time.Millisecond
	tries   = 10 // rewinds in one look, while others give out PIDs
)

// Watcher keeps the PIDs of new processes in the window of one node.
type Watcher struct {
	log         *slog.Logger
	file        *os.File // ns_last_pid
	first, end  int64
	strays      atomic.Uint64
	rewinds     atomic.Uint64
	stop, ended chan struct{}
}

// Start begins to keep the PIDs of this PID namespace in node's window. When it
// returns, the next process gets a PID of the window.
func Start(log *slog.Logger, node id.Node) (*Watcher, error) {
	if !node.Valid() {
		return nil, fmt.Errorf("PID window: no window for node %d", node)
	}
	if err := os.WriteFile("/proc/sys/kernel/pid_max", []byte(strconv.Itoa(pidMax)), 0); err != nil {
		return nil, fmt.Errorf("PID window: %w", err)
	}
	f, err := os.OpenFile("/proc/sys/kernel/ns_last_pid", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("PID window: %w (the kernel needs CONFIG_CHECKPOINT_RESTORE)", err)
	}
	first, end := node.Window()
	w := &Watcher{log: log, file: f, first: int64(first), end: int64(end), stop: make(chan struct{}), ended: make(chan struct{})}
	if err := w.begin(); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("PID window: %w", err)
	}
	go w.run()
	return w, nil
}

// begin takes the first PID of the window, unless an earlier watcher did.
func (w *Watcher) begin() error {
	last, err := w.last()
	if err != nil {
		return err
	}
	if to, rewind, stray := next(last, w.first, w.end); rewind {
		if stray { // a new boot: who still has a PID of the one before should not find another process under it
			to += rand.Int64N(spread)
		}
		_, err = w.file.WriteAt(strconv.AppendInt(nil, to, 10), 0)
		return err
	}
	return nil
}

// Stop ends the watcher and waits for it.
func (w *Watcher) Stop() {
	close(w.stop)
	<-w.ended
	_ = w.file.Close()
}

// Strays is how many looks found that PIDs outside of the window were given
// out since the last one.
func (w *Watcher) Strays() uint64 { return w.strays.Load() }

// Rewinds is how often the window was started anew.
func (w *Watcher) Rewinds() uint64 { return w.rewinds.Load() }

func (w *Watcher) run() {
	defer close(w.ended)
	runtime.LockOSThread() // never unlocked: the thread, with its priority, ends here
	prio := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1}
	if err := unix.SchedSetAttr(0, prio, 0); err != nil {
		w.log.Info("the PID window is watched without real-time priority", "op", "window", "err", err)
	}
	t := time.NewTimer(minPoll)
	defer t.Stop()
	failed := false
	for {
		select {
		case <-t.C:
		case <-w.stop:
			return
		}
		last, err := w.look()
		t.Reset(pause(last, w.end, runtime.NumCPU()))
		if err != nil && !failed {
			w.log.Error("PIDs may leave the window of this node", "op", "window", "err", err)
		}
		failed = err != nil
	}
}

// look reads the last PID, counts it if it is a stray, and rewinds if it is time. It
// returns the last PID then.
func (w *Watcher) look() (int64, error) {
	count := true
	for range tries {
		last, err := w.last()
		if err != nil {
			return w.end, err
		}
		to, rewind, stray := next(last, w.first, w.end)
		if stray && count {
			w.log.Warn("PIDs outside of this node's window were given out", "op", "window", "last", last, "window", w.first, "times", w.strays.Add(1))
			count = false
		}
		if !rewind {
			return last, nil
		}
		if _, err := w.file.WriteAt(strconv.AppendInt(nil, to, 10), 0); err != nil {
			return w.end, err
		}
		w.rewinds.Add(1)
	}
	return w.end, errors.New("the last PID does not stay in the window: something else writes ns_last_pid")
}

func (w *Watcher) last() (int64, error) {
	var b [24]byte
	n, err := w.file.ReadAt(b[:], 0)
	if n == 0 {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b[:n])), 10, 64)
}

// pause is how long no look is needed after one that found the PID last: until
// half of what is left before the end could be used up.
func pause(last, end int64, processors int) time.Duration {
	return min(max(time.Duration(end-last)*time.Second/time.Duration(2*rate*processors), minPoll), maxPoll)
}

// next decides: last is the PID given out last, [first, end) the window. to is
// what last becomes if rewind; stray tells that last is outside.
func next(last, first, end int64) (to int64, rewind, stray bool) {
	start := first + reserved - 1
	switch {
	case last < first-1 || last >= end: // first-1 and what follows it is the start of an empty window
		return start, true, true
	case last < start: // low numbers of the window stay free, as below 300
		return start, true, false
	case last >= end-margin:
		return start, true, false
	}
	return 0, false, false
}
