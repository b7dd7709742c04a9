package lab

import (
	"container/heap"
	"sync"
	"time"
)

const (
	wireFrames = 16384    // frames a delay line holds at most
	wireBytes  = 64 << 20 // bytes a delay line holds at most
)

// delayLine holds frames back until they are due. Frames with the same due time
// keep their order.
type delayLine struct {
	out func([]byte)

	mu     sync.Mutex
	queue  frameHeap
	bytes  int
	next   uint64 // number of the next frame
	closed bool
	flush  bool
	wake   chan struct{} // has a token when the first frame changed
}

type heldFrame struct {
	data   []byte
	due    time.Time
	number uint64
}

func newDelayLine(out func([]byte)) *delayLine {
	return &delayLine{out: out, wake: make(chan struct{}, 1)}
}

// busy reports whether frames wait: a later frame must not pass them unless it
// is due earlier.
func (l *delayLine) busy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue) > 0 && !l.closed
}

// put takes a copy of the frame; it reports false when the line is full.
func (l *delayLine) put(frame []byte, due time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.queue) >= wireFrames || l.bytes+len(frame) > wireBytes {
		return false
	}
	heap.Push(&l.queue, heldFrame{append([]byte(nil), frame...), due, l.next})
	l.next++
	l.bytes += len(frame)
	if l.queue[0].number == l.next-1 {
		l.signal()
	}
	return true
}

func (l *delayLine) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// close makes run end; what is held is sent at once or lost.
func (l *delayLine) close(flush bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed, l.flush = true, flush
	l.signal()
}

// run sends frames when they are due, until close.
func (l *delayLine) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		l.mu.Lock()
		if l.closed && (!l.flush || len(l.queue) == 0) {
			l.mu.Unlock()
			return
		}
		wait := time.Hour
		if l.closed {
			wait = 0
		} else if len(l.queue) > 0 {
			wait = time.Until(l.queue[0].due)
		}
		if wait <= 0 {
			f := heap.Pop(&l.queue).(heldFrame)
			l.bytes -= len(f.data)
			l.mu.Unlock()
			l.out(f.data)
			continue
		}
		l.mu.Unlock()
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-l.wake:
		}
	}
}

// frameHeap is a heap.Interface by due time, then by number.
type frameHeap []heldFrame

func (h frameHeap) Len() int { return len(h) }
func (h frameHeap) Less(i, j int) bool {
	if h[i].due.Equal(h[j].due) {
		return h[i].number < h[j].number
	}
	return h[i].due.Before(h[j].due)
}
func (h frameHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *frameHeap) Push(x any)   { *h = append(*h, x.(heldFrame)) }
func (h *frameHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = heldFrame{}
	*h = old[:len(old)-1]
	return last
}
