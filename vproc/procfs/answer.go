package procfs

import (
	"context"
	"errors"
	"path"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/errno"
	"ssi/internal/fuse"
)

const (
	// fetchWait is how long a node may take to read a file.
	fetchWait = 3 * time.Second
	// again is for how long the same thread gets the same answer: one access
	// makes the kernel look up a name up to three times.
	again = 100 * time.Millisecond
	// maxAnswers and maxAnswerBytes is how much is kept of what was read. What is
	// dropped is asked for again.
	maxAnswers     = 4096
	maxAnswerBytes = 32 << 20
)

// answer is what home said to one caller.
type answer struct {
	node  uint64 // the ID of the file
	asker asker
	data  []byte
	err   unix.Errno // of the kernel there
	lost  unix.Errno // there was no answer
	at    time.Time
}

// asker is who asked what.
type asker struct {
	question
	far           bool
	tid, uid, gid uint32
}

// answers is what was read lately, so that reads find it. The oldest are dropped first.
type answers struct {
	mu     sync.Mutex
	serial uint64
	byNode map[uint64]*answer
	byWho  map[asker]*answer
	order  []*answer
	bytes  int
}

func newAnswers() answers {
	return answers{serial: random(), byNode: map[uint64]*answer{}, byWho: map[asker]*answer{}}
}

func (a *answers) get(n uint64) *answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.byNode[n]
}

// recent is what the same thread was told a moment ago.
func (a *answers) recent(w asker) *answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.byWho[w]; s != nil && time.Since(s.at) < again {
		return s
	}
	return nil
}

// addLost keeps that w got no answer, for the lookups of the same access.
func (a *answers) addLost(w asker, e unix.Errno) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keep(&answer{asker: w, lost: e, at: time.Now()})
}

// add keeps s. A file with a serial number gets a new one if it has none: it is
// for this caller alone.
func (a *answers) add(s *answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if i := split(s.node); i.kind == kindRemote && i.serial() == 0 && !s.asker.stranger {
		for {
			a.serial++
			if s.node = i.remote(i.file(), uint32(a.serial)); split(s.node).serial() != 0 && a.byNode[s.node] == nil {
				break
			}
		}
	}
	a.byNode[s.node] = s
	a.keep(s)
}

// keep makes room for s; a.mu is held.
func (a *answers) keep(s *answer) {
	a.byWho[s.asker] = s
	a.order = append(a.order, s)
	a.bytes += len(s.data)
	drop := 0
	for ; drop < len(a.order)-1 && (len(a.order)-drop > maxAnswers || a.bytes > maxAnswerBytes); drop++ {
		o := a.order[drop]
		a.bytes -= len(o.data)
		if a.byNode[o.node] == o {
			delete(a.byNode, o.node)
		}
		if a.byWho[o.asker] == o {
			delete(a.byWho, o.asker)
		}
		a.order[drop] = nil
	}
	a.order = a.order[drop:]
}

// answer asks q for the caller of r and keeps what home said under n, or under
// the ID that is in the result. The error is of what never got there, or of what is not there.
func (t *tree) answer(ctx context.Context, r *fuse.Request, n uint64, q *question) (*answer, unix.Errno) {
	w := asker{question: *q, far: split(n).far, tid: r.PID, uid: r.UID, gid: r.GID}
	if q.stranger {
		w.tid, w.uid, w.gid = 0, stranger, stranger
	}
	if s := t.answers.recent(w); s != nil && (s.lost != 0 || s.node == n || split(n).serial() == 0) {
		return s, s.lost
	}
	rep, e := t.ask(ctx, r, q)
	if e != 0 {
		t.answers.addLost(w, e)
		return nil, e
	}
	s := &answer{node: n, asker: w, data: rep.GetData(), err: unix.Errno(rep.GetErrno()), at: time.Now()}
	if s.err == unix.ENOENT || s.err == unix.ESRCH {
		return nil, unix.ENOENT
	}
	t.tidy(s)
	t.answers.add(s)
	return s, 0
}

// tidy makes of a file what it is for a reader here.
func (t *tree) tidy(s *answer) {
	q := &s.asker.question
	if q.pid == 0 || q.what != What_READ || s.err != 0 {
		return
	}
	switch path.Base(q.path) {
	case "stat":
		s.data = rewriteStat(s.data, t.table.shift(q.node))
	case "status":
		s.data = rewriteStatus(s.data)
	}
}

// ask asks q in the name of the caller of r.
func (t *tree) ask(ctx context.Context, r *fuse.Request, q *question) (*FetchReply, unix.Errno) {
	c := &Caller{Uid: stranger, Gid: stranger}
	if !q.stranger {
		c = t.callerOf(r)
	}
	ask, cancel := context.WithTimeout(ctx, fetchWait)
	defer cancel()
	rep, err := t.peers.Fetch(ask, q.node, &FetchRequest{Caller: c, Pid: int32(q.pid), Path: q.path, What: q.what})
	switch {
	case err == nil && rep != nil && rep.GetErrno() < 4096: // MAX_ERRNO of the kernel
		return rep, 0
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled):
		return nil, unix.EINTR
	case errno.KindOf(err) == errno.Timeout:
		return nil, unix.ETIMEDOUT
	}
	return nil, unix.EIO
}
