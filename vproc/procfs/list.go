package procfs

import (
	"cmp"
	"context"
	"os"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"ssi/internal/fuse"
	"ssi/internal/id"
)

// maxListings is how many open directories are remembered as they were when they
// were opened. Those of the others are listed again for each piece that is read.
const maxListings = 256

// item is a name in a directory. The keys of a directory grow, and a name always has
// the same: so a listing goes on where it was in a directory that changed.
type item struct {
	key  uint64
	name string
	node uint64
	kind uint32 // its type, as in st_mode
}

// listing is a directory as it was when it was listed.
type listing struct {
	node  uint64
	items []item
	begun bool // somebody read its beginning: who goes back there wants to see it anew
}

// listings is the open directories, by handle.
type listings struct {
	mu    sync.Mutex
	last  uint64
	open  map[uint64]*listing
	order []uint64 // oldest first; some may be closed
}

func newListings() listings { return listings{last: random(), open: map[uint64]*listing{}} }

func (l *listings) add(d *listing) (handle uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	l.put(l.last, d)
	return l.last
}

// put keeps d under a handle; l.mu is held.
func (l *listings) put(handle uint64, d *listing) {
	if l.open[handle] == nil {
		l.order = append(l.order, handle)
	}
	l.open[handle] = d
	for len(l.open) > maxListings || len(l.order) > 2*maxListings {
		delete(l.open, l.order[0])
		l.order = l.order[1:]
	}
}

func (l *listings) replace(handle uint64, d *listing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.put(handle, d)
}

func (l *listings) drop(handle uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, handle)
	if len(l.order) > 0 && l.order[len(l.order)-1] == handle {
		l.order = l.order[:len(l.order)-1]
	}
}

// get is the listing to read from at an offset, if there is one.
func (l *listings) get(r *fuse.Request) *listing {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.open[r.Handle]
	if d == nil || d.node != r.Node || d.begun && r.Offset == 0 {
		return nil
	}
	d.begun = d.begun || r.Offset == 0
	return d
}

func (t *tree) opendir(r *fuse.Request) {
	t.listFor(r, func(d *listing) { r.Opened(t.lists.add(d)) })
}

func (t *tree) readdir(r *fuse.Request) {
	if d := t.lists.get(r); d != nil {
		t.emit(r, d)
		return
	}
	t.listFor(r, func(d *listing) {
		d.begun = true
		t.lists.replace(r.Handle, d)
		t.emit(r, d)
	})
}

// emit answers with the names after the offset.
func (t *tree) emit(r *fuse.Request, d *listing) {
	l := r.Listing()
	at, _ := slices.BinarySearchFunc(d.items, r.Offset, func(i item, off uint64) int { return cmp.Compare(i.key, off+1) })
	looked := false
	for _, i := range d.items[at:] {
		var e *fuse.Entry
		if r.Op == fuse.ReaddirPlus && i.node != 0 && i.key > 2 {
			if o, ok := t.object(i.node); ok && (o.from == nil || o.from.what == What_LINK && o.name > 0) {
				e = &fuse.Entry{Node: i.node, EntryTTL: o.name, AttrTTL: o.ttl, Attr: o.attr}
				looked = looked || o.remote
			}
		}
		if !l.Add(&fuse.Dirent{Name: i.name, Node: max(i.node, 1), Off: i.key, Type: i.kind}, e) {
			break
		}
	}
	if looked {
		t.fresh.looked()
		t.unsettle(d.items)
	}
	l.Send()
}

// listFor lists the directory of r and calls f, or answers with an error.
func (t *tree) listFor(r *fuse.Request, f func(d *listing)) {
	i := split(r.Node)
	slow := r.Node == rootID && len(t.table.nodes()) > 0 ||
		i.kind == kindFar && i.rest == farProc || i.kind == kindRemote && i.file() != fileDir
	do := func(ctx context.Context) {
		items, e := t.list(ctx, r, i)
		if e != 0 {
			r.Error(e)
			return
		}
		f(&listing{node: r.Node, items: append([]item{{1, ".", r.Node, unix.S_IFDIR}, {2, "..", 0, unix.S_IFDIR}}, items...)})
	}
	if slow {
		t.wait(r, do)
		return
	}
	do(t.ctx)
}

// list is the names in a directory, in the order of their keys, which are above 2.
func (t *tree) list(ctx context.Context, r *fuse.Request, i ident) ([]item, unix.Errno) {
	var all []item
	add := func(key int, name string, node uint64, mode uint32) {
		all = append(all, item{uint64(key) + 3, name, node, mode & unix.S_IFMT})
	}
	switch {
	case r.Node == rootID:
		return t.listRoot(ctx)
	case r.Node == clusterID:
		for k, name := range t.table.clusterFiles() {
			add(k, name, named(kindInfo, 0, name), open)
		}
	case r.Node == farDirID:
		nodes := append(t.table.nodes(), t.table.itself())
		slices.Sort(nodes)
		for _, n := range nodes {
			if n != 0 {
				add(int(n), "node"+n.String(), farID(n, farNode), dir)
			}
		}
	case r.Node == localID: // covered by a mount, always
	case i.kind == kindFar && i.rest == farNode:
		add(0, "proc", farID(i.node, farProc), dir)
	case i.kind == kindFar && i.rest == farProc:
		return t.listFar(ctx, r, i.node)
	case i.kind == kindTask:
		tid, _ := i.task()
		for f := 1; f < len(taskFiles); f++ {
			add(f, taskFiles[f].name, i.thread(tid, f), taskFiles[f].mode)
		}
	case i.kind == kindRemote && i.file() == fileDir:
		if t.table.on(i.node, i.pid) == nil {
			return nil, unix.ENOENT
		}
		for f := 1; f < len(files); f++ {
			if t.table.has(i.node, f) {
				add(f, files[f].name, i.remote(f, 0), files[f].mode)
			}
		}
	case i.kind == kindRemote:
		return t.listOf(ctx, r, i)
	default:
		return nil, unix.ENOTDIR
	}
	return all, 0
}

// listOf is the names in a directory within that of a process elsewhere.
func (t *tree) listOf(ctx context.Context, r *fuse.Request, i ident) ([]item, unix.Errno) {
	q := t.table.on(i.node, i.pid)
	if q == nil {
		return nil, unix.ENOENT
	}
	var all []item
	f := i.file()
	switch {
	case f == fileNS:
		for k, name := range namespaces {
			all = append(all, item{uint64(k) + 3, name, i.child(fileNS, uint32(k)), unix.S_IFLNK})
		}
		return all, 0
	case f == fileTask && q.threads == 1:
		return []item{{uint64(q.pid) + 3, pidName(q.pid), i.thread(q.pid, fileDir), unix.S_IFDIR}}, 0
	case f != fileFD && f != fileFDInfo && f != fileTask:
		return nil, unix.ENOTDIR
	}
	rep, e := t.ask(ctx, r, &question{node: i.node, pid: i.pid, path: files[f].name, what: What_LIST, stranger: f == fileTask})
	if e == 0 {
		e = unix.Errno(rep.GetErrno())
	}
	if e != 0 {
		return nil, e
	}
	for _, name := range rep.GetNames() {
		n, err := strconv.ParseUint(name, 10, numberBits)
		if err != nil {
			continue
		}
		one := item{n + 3, strconv.FormatUint(n, 10), i.child(f, uint32(n)), unix.S_IFLNK}
		switch f {
		case fileFDInfo:
			one.kind = unix.S_IFREG
		case fileTask:
			one.node, one.kind = i.thread(id.PID(n), fileDir), unix.S_IFDIR
		}
		all = append(all, one)
	}
	slices.SortFunc(all, byKey)
	return slices.CompactFunc(all, func(a, b item) bool { return a.key == b.key }), 0
}

func byKey(a, b item) int { return cmp.Compare(a.key, b.key) }

// firstPID is where the keys of PIDs begin in /proc; the names before are in the
// order of the kernel, as in proc(5).
const firstPID = 1 << 16

// listRoot is the names in /proc: those of the node, and the processes of all
// nodes in the order of their PIDs.
func (t *tree) listRoot(ctx context.Context) ([]item, unix.Errno) {
	t.fresh.refresh(ctx, listWait, false, true, t.table.nodes()...)
	names, err := t.realNames()
	if err != nil {
		return nil, unix.EIO
	}
	remote := t.table.list()
	all := make([]item, 0, len(names)+len(remote)+1)
	key := uint64(3)
	var local []id.PID
	for _, name := range names {
		if pid, ok := pidOf(name); ok {
			local = append(local, pid)
			continue
		}
		one := item{key, name, 0, unix.S_IFLNK}
		switch name {
		case "self":
			one.node = selfID
		case "thread-self":
			one.node = threadSelfID
		default:
			one.node = t.staticID(name)
			if t.bound[name] {
				one.kind = unix.S_IFDIR
			}
		}
		all = append(all, one)
		key++
	}
	all = append(all, item{key, "cluster", clusterID, unix.S_IFDIR})
	// Local ones are links, and said to be directories: programs look for those.
	process := func(pid id.PID, node uint64) item {
		return item{firstPID + uint64(pid), pidName(pid), node, unix.S_IFDIR}
	}
	slices.Sort(local)
	t.settle(local)
	for _, pid := range local {
		for len(remote) > 0 && remote[0].pid < pid {
			all = append(all, process(remote[0].pid, processID(remote[0].node, remote[0].pid).number()))
			remote = remote[1:]
		}
		switch q, here := t.place(pid); {
		case len(remote) > 0 && remote[0].pid == pid: // it has another place there, too
			if here {
				remote = remote[1:]
				all = append(all, process(pid, localPID(pid)))
			}
		case here && q == nil:
			all = append(all, process(pid, localPID(pid)))
		}
	}
	for _, q := range remote {
		all = append(all, process(q.pid, processID(q.node, q.pid).number()))
	}
	return all, 0
}

// listFar is the names in the procfs of another node.
func (t *tree) listFar(ctx context.Context, r *fuse.Request, n id.Node) ([]item, unix.Errno) {
	t.fresh.refresh(ctx, listWait, false, true, n)
	if _, up := t.table.up(n); !up {
		return nil, unix.ENOENT
	}
	rep, e := t.ask(ctx, r, &question{node: n, path: ".", what: What_LIST, stranger: true})
	if e != 0 {
		return nil, e
	}
	var all []item
	for k, name := range nodeFiles {
		if slices.Contains(rep.GetNames(), name) {
			all = append(all, item{uint64(k) + 3, name, farID(n, farFile+k), unix.S_IFREG})
		}
	}
	for _, q := range t.table.listOn(n) {
		i := processID(n, q.pid)
		i.far = true
		all = append(all, item{firstPID + uint64(q.pid), pidName(q.pid), i.number(), unix.S_IFDIR})
	}
	return all, 0
}

// realNames is the names in the plain proc(5).
func (t *tree) realNames() ([]string, error) {
	fd, err := unix.Openat(int(t.real.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	d := os.NewFile(uintptr(fd), "proc")
	defer func() { _ = d.Close() }()
	return d.Readdirnames(-1)
}
