package lab

import (
	"bytes"
	"time"

	"ssi/internal/delay"
)

const (
	wireFrames = 16384    // frames a delay line holds at most
	wireBytes  = 64 << 20 // bytes a delay line holds at most
)

// delayLine is one direction of a wire whose frames are held back.
type delayLine struct {
	line *delay.Line
	out  func([]byte)
}

func newDelayLine(out func([]byte)) *delayLine {
	return &delayLine{delay.New(wireFrames, wireBytes), out}
}

// busy reports whether frames wait: a later frame must not pass them unless it
// is due earlier.
func (l *delayLine) busy() bool { return l.line.Busy() }

// put takes a copy of the frame; it reports false when the line is full.
func (l *delayLine) put(frame []byte, due time.Time) bool {
	return l.line.Put(bytes.Clone(frame), due)
}

// close makes run end; what is held is sent at once or lost.
func (l *delayLine) close(flush bool) { l.line.Close(flush) }

// run sends frames when they are due, until close.
func (l *delayLine) run() {
	send := func(frame []byte) error { l.out(frame); return nil }
	_ = l.line.Run(send, func() error { return nil }) // neither fails
}
