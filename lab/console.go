package lab

import (
	"context"
	"sync"
)

// consoleSize is how many bytes of a node's console are kept at least; twice as
// many are at most.
const consoleSize = 1 << 20

// console keeps the last output of a node's PID 1, over all its lives.
type console struct {
	mu      sync.Mutex
	buf     []byte
	first   int64         // position of buf[0] in all that was ever written
	changed chan struct{} // closed and replaced by each write
}

func newConsole() *console { return &console{changed: make(chan struct{})} }

// Write appends p; it never fails.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = append(c.buf, p...)
	if over := len(c.buf) - consoleSize; over > consoleSize { // rarely, so that a write costs little
		c.buf = append(c.buf[:0], c.buf[over:]...)
		c.first += int64(over)
	}
	close(c.changed)
	c.changed = make(chan struct{})
	return len(p), nil
}

// from returns what was written at pos and after, where to go on, and a channel
// that is closed when there is more.
func (c *console) from(pos int64) (p []byte, next int64, more <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	start := max(0, min(pos-c.first, int64(len(c.buf))))
	return append([]byte(nil), c.buf[start:]...), c.first + int64(len(c.buf)), c.changed
}

// tail is the last n bytes.
func (c *console) tail(n int) string {
	p, _, _ := c.from(0)
	return string(p[max(0, len(p)-n):])
}

// follow calls f with all there is and, if on is set, with what comes until ctx
// ends.
func (c *console) follow(ctx context.Context, on bool, f func([]byte) error) error {
	var pos int64
	for {
		p, next, more := c.from(pos)
		pos = next
		if len(p) > 0 {
			if err := f(p); err != nil {
				return err
			}
		}
		if !on {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-more:
		}
	}
}
