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
	"ssi/internal/id"
)

const (
	// fetchWait is how long a node may take to read a file.
	fetchWait = 3 * time.Second
	// again is for how long the same thread gets the same answer: one access
	// makes the kernel look up a name up to three times.
	again = 100 * time.Millisecond
	// steadyFor is for how long what nearly never changes is believed, as long as the
	// process shows no other change: environ, which ps(1) reads of every process.
	steadyFor = time.Minute
	// maxAnswers and maxAnswerBytes is how much is kept of what was read. What is
	// dropped is asked for again.
	maxAnswers     = 1 << 15
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
	far bool
	tid uint32 // 0: all threads that are the same user to the kernel
	who string // who that is: see identity
}

// answers is what was read lately, so that reads find it. The oldest are dropped first.
type answers struct {
	mu     sync.Mutex
	serial uint64
	byNode map[uint64]*answer
	byWho  map[asker]*answer
	order  []*answer
	bytes  int
	missed asker // the last question that was not at hand and may be asked for many processes, and when
	at     time.Time
}

func newAnswers() answers {
	return answers{serial: random(), byNode: map[uint64]*answer{}, byWho: map[asker]*answer{}}
}

func (a *answers) get(n uint64) *answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.byNode[n]
}

// recent is what w was told a moment ago, or, if it is steady, since the process changed.
func (a *answers) recent(w asker, steady bool, changed time.Time) *answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.byWho[w]
	if s == nil {
		return nil
	}
	age := time.Since(s.at)
	if age < again || steady && s.lost == 0 && age < steadyFor && changed.Before(s.at) {
		return s
	}
	return nil
}

// forget drops what was told of a file of a process, to whomever.
func (a *answers) forget(n id.Node, pid id.PID, path string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for w := range a.byWho { // writes are rare
		if w.node == n && w.pid == pid && w.path == path {
			delete(a.byWho, w)
		}
	}
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

// askerOf is who asks q by r.
func (t *tree) askerOf(r *fuse.Request, n uint64, q *question) (asker, *Caller) {
	c := t.callerFor(r, q)
	w := asker{question: *q, far: split(n).far, who: c.who}
	if !q.steady() && !q.stranger {
		w.tid = r.PID
	}
	return w, c.Caller
}

// steady reports whether the answer nearly never changes.
func (q *question) steady() bool { return q.path == "environ" }

// atHand is the answer to q if w need not wait for it, or nil.
func (t *tree) atHand(w asker, n uint64) *answer {
	var changed time.Time
	if w.steady() {
		p := t.table.on(w.node, w.pid)
		if p == nil {
			return nil
		}
		changed = p.changed
	}
	s := t.answers.recent(w, w.steady(), changed)
	if s == nil || s.lost == 0 && s.node != n && split(n).serial() != 0 {
		return nil
	}
	return s
}

// answer asks q for the caller of r and keeps what home said under n, or under
// the ID that is in the result. The error is of what never got there, or of what is not there.
func (t *tree) answer(ctx context.Context, r *fuse.Request, n uint64, q *question) (*answer, unix.Errno) {
	w, c := t.askerOf(r, n, q)
	if s := t.atHand(w, n); s != nil {
		return s, s.lost
	}
	s := &answer{node: n, asker: w, at: time.Now()} // before home is asked: what changes meanwhile is newer
	also := t.others(w)
	rep, e := t.fetch(ctx, q.node, q.request(c, also))
	if e != 0 {
		t.answers.addLost(w, e)
		return nil, e
	}
	t.addOthers(w, n, also, rep, s.at)
	s.data, s.err = rep.GetData(), unix.Errno(rep.GetErrno())
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
	return t.fetch(ctx, q.node, q.request(t.callerFor(r, q).Caller, nil))
}

func (t *tree) callerFor(r *fuse.Request, q *question) knownCaller {
	if q.stranger {
		return nobody()
	}
	return t.callerOf(r)
}

func (q *question) request(c *Caller, also []int32) *FetchRequest {
	return &FetchRequest{Caller: c, Pid: int32(q.pid), Path: q.path, What: q.what, Also: also}
}

func (t *tree) fetch(ctx context.Context, n id.Node, req *FetchRequest) (*FetchReply, unix.Errno) {
	ask, cancel := context.WithTimeout(ctx, fetchWait)
	defer cancel()
	rep, err := t.peers.Fetch(ask, n, req)
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
