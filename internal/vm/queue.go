package vm

import (
	"container/heap"
	"sync"
	"time"
)

const (
	queueFrames = 8192     // frames a port holds back at most
	queueBytes  = 16 << 20 // bytes a port holds back at most
)

// queue holds the frames for one port until they are due. Frames with the same
// due time keep their order.
type queue struct {
	mu     sync.Mutex
	frames frameHeap
	bytes  int
	next   uint64 // number of the next frame
	closed bool
	wake   chan struct{} // has a token when the first frame changed
}

type heldFrame struct {
	data   []byte
	due    time.Time
	number uint64
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1)} }

// put reports false if the frame is dropped because the queue is full or closed.
// The frame must not be changed any more.
func (q *queue) put(frame []byte, due time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.frames) >= queueFrames || q.bytes+len(frame) > queueBytes {
		return false
	}
	heap.Push(&q.frames, heldFrame{frame, due, q.next})
	q.bytes += len(frame)
	if q.frames[0].number == q.next {
		q.signal()
	}
	q.next++
	return true
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// close makes run end; what is held is lost.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed, q.frames, q.bytes = true, nil, 0
	q.signal()
}

// take returns the first frame if it is due at now, else how long to wait.
func (q *queue) take(now time.Time) (frame []byte, wait time.Duration, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return nil, 0, true
	case len(q.frames) == 0:
		return nil, time.Hour, false
	}
	if wait = q.frames[0].due.Sub(now); wait > 0 {
		return nil, wait, false
	}
	f := heap.Pop(&q.frames).(heldFrame)
	q.bytes -= len(f.data)
	return f.data, 0, false
}

// run sends each frame when it is due, until close or the first error. flush is
// called whenever no further frame is due.
func (q *queue) run(send func([]byte) error, flush func() error) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		frame, wait, closed := q.take(time.Now())
		switch {
		case closed:
			return nil
		case frame != nil:
			if err := send(frame); err != nil {
				return err
			}
			continue
		}
		if err := flush(); err != nil {
			return err
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-q.wake:
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
