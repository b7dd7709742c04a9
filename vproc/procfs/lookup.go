package procfs

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/fuse"
	"ssi/internal/id"
)

// lookup answers what a name means in a directory.
func (t *tree) lookup(r *fuse.Request) {
	if r.Node == rootID {
		t.lookupRoot(r)
		return
	}
	i := split(r.Node)
	if i.far || i.kind == kindFar {
		t.far.Store(true)
	}
	n, ok := t.child(r.Node, i, r.Name)
	switch {
	case ok && n == 0: // never there, as long as the process lives
		r.Entry(&fuse.Entry{EntryTTL: attrTTL})
		t.fresh.looked()
	case !ok:
		r.Error(unix.ENOENT)
	default:
		t.found(r, n)
	}
}

// child finds a name in a directory other than the root: 0 and true is a file
// that processes may have and this one has not.
func (t *tree) child(n uint64, i ident, name string) (uint64, bool) {
	switch {
	case n == clusterID:
		_, _, ok := t.table.clusterFile(name)
		return named(kindInfo, 0, name), ok
	case n == farDirID:
		number, ok := strings.CutPrefix(name, "node")
		node, err := id.ParseNode(number)
		return farID(node, farNode), ok && err == nil && number == node.String()
	case i.kind == kindFar && i.rest == farNode:
		return farID(i.node, farProc), name == "proc"
	case i.kind == kindFar && i.rest == farProc:
		if pid, ok := pidOf(name); ok {
			i := processID(i.node, pid)
			i.far = true
			return i.number(), true
		}
		f := slices.Index(nodeFiles[:], name)
		return farID(i.node, farFile+f), f >= 0
	case i.kind == kindRemote:
		return t.childOf(i, name)
	case i.kind == kindTask:
		tid, file := i.task()
		f := slices.IndexFunc(taskFiles[:], func(f procFile) bool { return f.name == name })
		return i.thread(tid, f), file == fileDir && f > 0
	}
	return 0, false
}

// childOf finds a name in a directory of a process elsewhere.
func (t *tree) childOf(i ident, name string) (uint64, bool) {
	switch i.file() {
	case fileDir:
		if t.table.on(i.node, i.pid) == nil {
			return 0, false
		}
		f := slices.IndexFunc(files[:], func(f procFile) bool { return f.name == name })
		if f <= 0 || !t.table.has(i.node, f) {
			return 0, true
		}
		return i.remote(f, 0), true
	case fileFD, fileFDInfo:
		number, err := strconv.ParseUint(name, 10, numberBits)
		return i.child(i.file(), uint32(number)), err == nil && strconv.FormatUint(number, 10) == name
	case fileNS:
		at := slices.Index(namespaces[:], name)
		return i.child(fileNS, uint32(max(at, 0))), at >= 0
	case fileTask:
		tid, ok := pidOf(name)
		return i.thread(tid, fileDir), ok
	}
	return 0, false
}

// found answers a lookup that led to n.
func (t *tree) found(r *fuse.Request, n uint64) {
	o, ok := t.object(n)
	if !ok {
		r.Error(unix.ENOENT)
		return
	}
	i := split(n)
	switch tid, file := i.task(); {
	case o.from != nil && (o.from.what == What_READ || i.kind == kindItem && o.name == 0):
		w, _ := t.askerOf(r, n, o.from)
		if a := t.atHand(w, n); a != nil {
			t.foundThere(r, n, &o, a, a.lost)
			return
		}
		t.wait(r, func(ctx context.Context) {
			a, e := t.answer(ctx, r, n, o.from)
			t.foundThere(r, n, &o, a, e)
		})
	case i.kind == kindTask && file == fileDir && tid != i.pid: // is there such a thread?
		ask := &question{node: i.node, pid: i.pid, path: "task/" + pidName(tid) + "/comm", stranger: true}
		t.wait(r, func(ctx context.Context) {
			if _, e := t.answer(ctx, r, i.thread(tid, taskComm), ask); e != 0 {
				r.Error(e)
				return
			}
			t.entry(r, n, &o)
		})
	default:
		t.entry(r, n, &o)
	}
}

// foundThere answers a lookup that home was asked for: the size of a file is that
// of what is in it.
func (t *tree) foundThere(r *fuse.Request, n uint64, o *object, a *answer, e unix.Errno) {
	link := o.from.what == What_LINK
	switch {
	case e != 0:
	case link:
		e = a.err
	default:
		n = a.node
		if now, ok := t.object(n); ok {
			*o = now
		} else {
			e = unix.ENOENT
		}
	}
	if e != 0 {
		r.Error(e)
		return
	}
	t.entry(r, n, o)
}

func (t *tree) entry(r *fuse.Request, n uint64, o *object) {
	if o.remote {
		t.fresh.looked()
	}
	r.Entry(&fuse.Entry{Node: n, EntryTTL: o.name, AttrTTL: o.ttl, Attr: o.attr})
}

// lookupRoot answers what a name means in /proc.
func (t *tree) lookupRoot(r *fuse.Request) {
	switch r.Name {
	case "self":
		t.found(r, selfID)
		return
	case "thread-self":
		t.found(r, threadSelfID)
		return
	case ".local":
		t.found(r, localID)
		return
	case "cluster":
		t.found(r, clusterID)
		return
	case ".cluster":
		t.found(r, farDirID)
		return
	}
	if pid, ok := pidOf(r.Name); ok {
		t.lookupPID(r, pid)
		return
	}
	if t.bound[r.Name] {
		t.found(r, t.staticID(r.Name))
		return
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(t.real.Fd()), r.Name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		e := unix.ENOENT
		if errors.Is(err, unix.ENAMETOOLONG) {
			e = unix.ENAMETOOLONG
		}
		r.Error(e)
		return
	}
	t.found(r, t.staticID(r.Name))
}

// lookupPID answers which process a PID is. What is known and fresh enough, and what
// is local, is told at once; else its node is asked.
func (t *tree) lookupPID(r *fuse.Request, pid id.PID) {
	n, node := t.process(pid)
	surrogate := false
	switch {
	case n == 0:
		node = pid.Home()
	case node == 0: // it may be a surrogate, and more be known where its process lives
		node = t.table.lives(pid)
		surrogate = node != 0
	}
	polled, up := t.table.up(node)
	switch {
	case !up || n != 0 && !surrogate && time.Since(polled) < old:
		t.tellPID(r, pid, n)
	case n != 0:
		t.wait(r, func(ctx context.Context) {
			t.fresh.refresh(ctx, listWait, false, false, node)
			n, _ := t.process(pid)
			if n == 0 { // it may have moved
				n = t.newcomer(ctx, r, pid)
			}
			t.tellPID(r, pid, n)
		})
	default:
		t.wait(r, func(ctx context.Context) { t.tellPID(r, pid, t.newcomer(ctx, r, pid)) })
	}
}

// newcomer is the node ID of a process elsewhere that is not known yet, 0 if its
// home has none or does not tell within lookWait. It may exist and not be
// published at once, or live on another node: then that is waited for. (That the number of a thread is good for the name of
// a directory, too, is not so across nodes.)
func (t *tree) newcomer(ctx context.Context, r *fuse.Request, pid id.PID) uint64 {
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	rep, e := t.ask(ctx, r, &question{node: pid.Home(), pid: pid, path: "status", stranger: true})
	if e != 0 || string(statusLine(rep.GetData(), "Tgid")) != pidName(pid) {
		return 0
	}
	for nodes := []id.Node{pid.Home()}; ; nodes = t.table.nodes() {
		t.fresh.refresh(ctx, lookWait, true, true, nodes...)
		n, _ := t.process(pid)
		if n != 0 || ctx.Err() != nil {
			return n
		}
		select {
		case <-time.After(freshFor):
		case <-ctx.Done():
			return 0
		}
	}
}

func (t *tree) tellPID(r *fuse.Request, pid id.PID, n uint64) {
	if n == 0 {
		r.Error(unix.ENOENT)
		return
	}
	t.told(pid, n == localPID(pid))
	t.found(r, n)
}

// process is the node ID of a process, 0 if there is none, and on which other
// node it lives.
func (t *tree) process(pid id.PID) (n uint64, node id.Node) {
	q := t.table.find(pid)
	if _, exists := t.local(pid); exists {
		var here bool
		if q, here = t.place(pid); here {
			return localPID(pid), 0
		}
	}
	if q == nil {
		return 0, 0
	}
	return processID(q.node, pid).number(), q.node
}
