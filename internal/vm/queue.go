package vm

import "ssi/internal/delay"

const (
	queueFrames = 8192     // frames a port holds back at most
	queueBytes  = 16 << 20 // bytes a port holds back at most
)

// newQueue holds the frames for one port until they are due.
func newQueue() *delay.Line { return delay.New(queueFrames, queueBytes) }
