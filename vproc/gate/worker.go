package gate

import "ssi/vproc/call"

// keptWorkers is how many goroutines of a listener wait for a call: one that has
// handled calls has a stack that is large enough for the next.
const keptWorkers = 4

// job is a call that is handled by a worker.
type job struct {
	c     *caught
	row   *call.Call
	again bool
}

// hand gives a call to a worker that waits for one, or to a new one. It is called by
// the receiver.
func (l *listener) hand(j job) {
	select {
	case l.jobs <- j:
	default:
		l.workers.Add(1)
		go l.work(j)
	}
}

// work handles calls until there are enough other workers, or the receiver has ended.
func (l *listener) work(j job) {
	defer l.workers.Done()
	for ok := true; ok; {
		if j.c.slow(j.row, j.again) {
			j.c.g.journal.release(j.c.i)
		}
		// Otherwise the gate is closed: the slot holds the call for the next one.
		j = job{}
		if l.idle.Add(1) > keptWorkers {
			ok = false
		} else {
			j, ok = <-l.jobs
		}
		l.idle.Add(-1)
	}
}
