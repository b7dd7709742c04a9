package delay

import (
	"container/heap"
	"sync"
	"time"
)

// Line holds frames until they are due.
type Line struct {
	maxFrames, maxBytes int

	mu     sync.Mutex
	frames frameHeap
	bytes  int
	next   uint64 // number of the next frame
	closed bool
	wake   chan struct{} // has a token when the first frame changed
}

// New makes a line for at most so many frames with so many bytes together.
func New(maxFrames, maxBytes int) *Line {
	return &Line{maxFrames: maxFrames, maxBytes: maxBytes, wake: make(chan struct{}, 1)}
}

// Put reports false if the frame is dropped because the line is full or closed.
// The frame must not be changed any more.
func (l *Line) Put(frame []byte, due time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.frames) >= l.maxFrames || l.bytes+len(frame) > l.maxBytes {
		return false
	}
	heap.Push(&l.frames, heldFrame{frame, due, l.next})
	l.bytes += len(frame)
	if l.frames[0].number == l.next {
		l.signal()
	}
	l.next++
	return true
}

// Busy reports whether frames wait: a later one must not pass them unless it is
// due earlier.
func (l *Line) Busy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.frames) > 0 && !l.closed
}

// Close makes Run end; what is held is due now if flush is true, else lost.
func (l *Line) Close(flush bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if !flush {
		l.frames, l.bytes = nil, 0
	}
	l.signal()
}

func (l *Line) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Take takes the first frame out if it is due at now; otherwise wait, above 0,
// is for how long there is none. end says that no frame will come any more.
func (l *Line) Take(now time.Time) (frame []byte, wait time.Duration, end bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.frames) == 0 {
		return nil, time.Hour, l.closed
	}
	if wait = l.frames[0].due.Sub(now); wait > 0 && !l.closed {
		return nil, wait, false
	}
	f := heap.Pop(&l.frames).(heldFrame)
	l.bytes -= len(f.data)
	return f.data, 0, false
}

// Run sends each frame when it is due, until Close or the first error. idle is
// called whenever no further frame is due.
func (l *Line) Run(send func([]byte) error, idle func() error) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		frame, wait, end := l.Take(time.Now())
		if end {
			return nil
		}
		if wait == 0 {
			if err := send(frame); err != nil {
				return err
			}
			continue
		}
		if err := idle(); err != nil {
			return err
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-l.wake:
		}
	}
}

type heldFrame struct {
	data   []byte
	due    time.Time
	number uint64
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
