package procfs

import (
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/fuse"
	"ssi/internal/id"
)

// object is what a node ID stands for, as far as that is known here.
type object struct {
	attr    fuse.Attr
	ttl     time.Duration // for how long the kernel may believe attr
	name    time.Duration // and the name
	content []byte        // of a file or link
	err     unix.Errno    // what reading it gives instead
	from    *question     // home has to be asked for the content; nil: not
	remote  bool          // it tells of another node
}

// question is what a node is asked.
type question struct {
	node     id.Node
	pid      id.PID // 0: a file of the node
	path     string
	what     What
	stranger bool // asked in nobody's name: the answer is for all
}

func directory() object {
	return object{attr: fuse.Attr{Mode: dir, Nlink: 1}, ttl: attrTTL, name: attrTTL}
}

// mountPoint is a directory that never goes: to forget its name is to unmount what is
// mounted on it (d_invalidate in fs/dcache.c).
func mountPoint() object {
	o := directory()
	o.name = always
	return o
}

func linkTo(to string) object {
	return object{attr: fuse.Attr{Mode: symlink, Nlink: 1, Size: uint64(len(to))}, ttl: attrTTL, name: attrTTL, content: []byte(to)}
}

func pidName(pid id.PID) string { return strconv.Itoa(int(pid)) }

// object finds what n stands for; false: nothing (any more).
func (t *tree) object(n uint64) (object, bool) {
	switch i := split(n); i.kind {
	case kindFixed:
		return t.fixed(n)
	case kindLocal:
		return t.local(i.pid)
	case kindStatic:
		return t.static(n)
	case kindInfo:
		return t.info(n)
	case kindFar:
		return t.farObject(n, i)
	case kindRemote, kindItem, kindTask:
		q := t.table.on(i.node, i.pid)
		if q == nil {
			return object{}, false
		}
		o, ok := t.ofProcess(q, i)
		o.remote = true
		return o, ok
	}
	return object{}, false
}

func (t *tree) fixed(n uint64) (object, bool) {
	switch n {
	case rootID, localID, clusterID, farDirID:
		return mountPoint(), true
	case selfID, threadSelfID: // where it leads depends on who asks: see readlink
		return object{attr: fuse.Attr{Mode: symlink, Nlink: 1}, ttl: attrTTL, name: attrTTL}, true
	}
	return object{}, false
}

// local is the link to a local process.
func (t *tree) local(pid id.PID) (object, bool) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(t.real.Fd()), pidName(pid), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return object{}, false
	}
	o := linkTo(".local/" + pidName(pid))
	o.attr.UID, o.attr.GID = st.Uid, st.Gid
	o.ttl, o.name = localTTL, localTTL
	return o, true
}

// static is a file of the node.
func (t *tree) static(n uint64) (object, bool) {
	name, ok := t.staticName(n)
	if !ok {
		return object{}, false
	}
	if t.bound[name] {
		return mountPoint(), true
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(t.real.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return object{}, false
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK { // net → self/net
		buf := make([]byte, 256)
		n, err := unix.Readlinkat(int(t.real.Fd()), name, buf)
		if err != nil {
			return object{}, false
		}
		return linkTo(string(buf[:n])), true
	}
	return linkTo(".local/" + name), true
}

func (t *tree) staticName(n uint64) (string, bool) {
	t.mu.Lock()
	name, ok := t.statics[n]
	t.mu.Unlock()
	if ok {
		return name, true
	}
	names, err := t.realNames() // a server before this one told it
	if err != nil {
		return "", false
	}
	for name := range t.bound {
		names = append(names, name)
	}
	for _, name := range names {
		if t.staticID(name) == n {
			return name, true
		}
	}
	return "", false
}

// staticID is the ID of a file of the node.
func (t *tree) staticID(name string) uint64 {
	n := named(kindStatic, 0, name)
	t.mu.Lock()
	t.statics[n] = name
	t.mu.Unlock()
	return n
}

// info is a file of /proc/cluster.
func (t *tree) info(n uint64) (object, bool) {
	for _, name := range t.table.clusterFiles() {
		if named(kindInfo, 0, name) == n {
			content, at, ok := t.table.clusterFile(name)
			return object{attr: fuse.Attr{Mode: open, Nlink: 1, Size: uint64(len(content)), Mtime: at}, name: attrTTL, content: content}, ok
		}
	}
	return object{}, false
}

// farObject is a file or directory of /cluster/nodeN.
func (t *tree) farObject(n uint64, i ident) (object, bool) {
	self := t.table.itself()
	if _, up := t.table.up(i.node); !up && (i.node != self || self == 0) {
		return object{}, false
	}
	o := directory()
	switch what := int(i.rest); {
	case what == farNode:
		o.name = 0 // a node may leave at any time
	case what == farProc && i.node == self:
		o = linkTo("/proc/.local")
	case what == farProc:
	case i.node == self || what-farFile >= len(nodeFiles):
		return object{}, false
	default:
		o.from = &question{node: i.node, path: nodeFiles[what-farFile], stranger: true}
		o.attr.Mode = open
		t.fill(&o, n)
	}
	o.remote = true
	return o, true
}

// ofProcess is a file or directory of a process elsewhere.
func (t *tree) ofProcess(q *process, i ident) (object, bool) {
	o := object{attr: fuse.Attr{Nlink: 1, Mtime: q.changed, UID: q.uid, GID: q.gid}, ttl: attrTTL, name: attrTTL}
	switch i.kind {
	case kindItem:
		return o, t.item(q, i, &o)
	case kindTask:
		return o, t.task(q, i, &o)
	}
	if i.file() >= len(files) {
		return o, false
	}
	f := files[i.file()]
	o.attr.Mode = f.mode
	switch {
	case i.file() == fileWhere:
		o.give([]byte(q.node.String() + "\n"))
	case i.file() == fileCmdline && q.long:
		o.from = &question{node: q.node, pid: q.pid, path: f.name, stranger: true}
		t.fill(&o, i.number())
	case f.source == pushed:
		o.give(q.files[i.file()])
	case f.source == written:
		o.err, o.attr.Size = unix.EINVAL, 1 // the kernel does not ask for what is in an empty file
	case f.source == fetched:
		o.from = &question{node: q.node, pid: q.pid, path: f.name}
		t.fill(&o, i.number())
	case f.source == link:
		o.from = &question{node: q.node, pid: q.pid, path: f.name, what: What_LINK}
	}
	return o, true
}

// item is a numbered thing in a directory of a process.
func (t *tree) item(q *process, i ident, o *object) bool {
	d, number := i.item()
	switch d {
	case fileFD:
		o.attr.Mode = unix.S_IFLNK | 0o700
		o.from = &question{node: q.node, pid: q.pid, path: "fd/" + strconv.Itoa(int(number)), what: What_LINK}
		o.ttl, o.name = 0, 0
	case fileFDInfo:
		// One file for all who may read it: its owner, and root.
		o.attr.Mode = private
		o.from = &question{node: q.node, pid: q.pid, path: "fdinfo/" + strconv.Itoa(int(number))}
		t.fill(o, i.number())
	case fileNS:
		if int(number) >= len(namespaces) {
			return false
		}
		o.attr.Mode = symlink
		o.from = &question{node: q.node, pid: q.pid, path: "ns/" + namespaces[number], what: What_LINK}
	default:
		return false
	}
	return true
}

// task is the directory of a thread, or a file in it.
func (t *tree) task(q *process, i ident, o *object) bool {
	tid, file := i.task()
	if file >= len(taskFiles) || q.threads == 1 && tid != q.pid {
		return false
	}
	f := taskFiles[file]
	o.attr.Mode = f.mode
	o.ttl, o.name = keepUp, keepUp
	switch {
	case file == fileDir:
	case q.threads == 1 && file < filePushed && (file != fileCmdline || !q.long):
		o.give(q.files[file])
	default:
		o.from = &question{node: q.node, pid: q.pid, path: "task/" + pidName(tid) + "/" + f.name, stranger: true}
		t.fill(o, i.number())
	}
	return true
}

func (o *object) give(content []byte) {
	o.content = content
	o.attr.Size = uint64(len(content))
}

// fill takes the answer that was got for a file, if there is one. Its name is
// good for that one lookup only.
func (t *tree) fill(o *object, n uint64) {
	o.name = 0
	a := t.answers.get(n)
	if a == nil {
		return
	}
	o.from = nil
	o.give(a.data)
	o.attr.Mtime = a.at
	if o.err = a.err; o.err == unix.EACCES || o.err == unix.EPERM {
		o.attr.Mode &^= 0o555 // the kernel shall refuse to open it
	}
}
