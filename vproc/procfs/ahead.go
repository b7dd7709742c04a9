package procfs

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
)

// Who reads a file of one process after the other, as ps(1) reads environ, is going to read it of the next
// ones: they are asked for with the same question, in the same name.

// second reports whether w follows another question of the same kind, for a process before.
func (a *answers) second(w asker) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	last, at := a.missed, a.at
	a.missed, a.at = w, time.Now()
	before := last.pid < w.pid
	last.pid = w.pid
	return before && last == w && time.Since(at) < again
}

// others is the processes for which w is going to ask the same, as far as can be told.
func (t *tree) others(w asker) (also []int32) {
	if !w.steady() || !t.answers.second(w) {
		return nil
	}
	all := t.table.listOn(w.node)
	first, _ := slices.BinarySearchFunc(all, w.pid+1, func(p *process, pid id.PID) int { return int(p.pid) - int(pid) })
	for _, p := range all[first:] {
		if len(also) == maxAlso {
			break
		}
		next := w
		next.pid = p.pid
		if t.answers.recent(next, true, p.changed) == nil {
			also = append(also, int32(p.pid))
		}
	}
	return also
}

// addOthers keeps the answers for others; n is the ID of the file of w.
func (t *tree) addOthers(w asker, n uint64, also []int32, rep interface{ GetAlso() []*FetchReply }, at time.Time) {
	i := split(n)
	for k, r := range rep.GetAlso() {
		if k >= len(also) || r.GetErrno() >= 4096 { // MAX_ERRNO of the kernel
			return
		}
		e := unix.Errno(r.GetErrno())
		if e == unix.ENOENT || e == unix.ESRCH {
			continue
		}
		w.pid, i.pid = id.PID(also[k]), id.PID(also[k])
		t.answers.add(&answer{node: i.remote(i.file(), 0), asker: w, data: r.GetData(), err: e, at: at})
	}
}
