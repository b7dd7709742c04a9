package procfs

import (
	"context"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/fuse"
	"ssi/internal/id"
)

const (
	// readers is how many goroutines read requests.
	readers = 2
	// maxSlow is how many requests may wait for other nodes at once, and
	// maxSlowUser how many of them one user other than root may have.
	maxSlow     = 256
	maxSlowUser = 64
	// localTTL is how long the kernel believes the name of a local process.
	localTTL = time.Second
	// always is for what lasts as long as the mount.
	always = 100 * 365 * 24 * time.Hour
)

// tree is the file system: it answers the requests of the kernel.
type tree struct {
	conn  *fuse.Conn
	table *Table
	fresh *refresher
	peers Peers
	real  *os.File        // the plain proc(5) of this node
	bound map[string]bool // its directories that are bind mounts in the view
	ids   ownID           // who this process is

	answers answers
	callers callers
	lists   listings
	far     atomic.Bool // somebody looked below /cluster
	wg      sync.WaitGroup
	ctx     context.Context // of the requests that wait

	mu      sync.Mutex
	slow    map[uint32]int    // requests that wait, by user
	waiting int               // their sum
	statics map[uint64]string // names of kindStatic
	settled map[id.PID]bool   // see place.go
	forget  map[string]uint64 // names that the kernel is to forget, and their directory; see forgetter
	wake    chan struct{}     // of capacity 1: there are some
	held    *stale            // not nil: what to tell later
}

func newTree(ctx context.Context, conn *fuse.Conn, table *Table, peers Peers, real *os.File, bound []string) *tree {
	t := &tree{
		conn: conn, table: table, peers: peers, real: real, bound: map[string]bool{}, ids: ownIDs(real), ctx: ctx,
		answers: newAnswers(), lists: newListings(),
		slow: map[uint32]int{}, statics: map[uint64]string{}, settled: map[id.PID]bool{}, forget: map[string]uint64{}, wake: make(chan struct{}, 1),
	}
	for _, name := range bound {
		t.bound[name] = true
	}
	return t
}

// handle answers a request, or leaves that to a goroutine that wg counts.
func (t *tree) handle(r *fuse.Request) {
	switch r.Op {
	case fuse.Lookup:
		t.lookup(r)
	case fuse.Getattr:
		t.getattr(r)
	case fuse.Readlink:
		t.readlink(r)
	case fuse.Read:
		t.read(r)
	case fuse.Opendir:
		t.opendir(r)
	case fuse.Readdir, fuse.ReaddirPlus:
		t.readdir(r)
	case fuse.Releasedir:
		t.lists.drop(r.Handle)
		r.Error(0)
	case fuse.Statfs:
		r.Statfs()
	case fuse.Setattr:
		t.setattr(r)
	case fuse.Write:
		t.write(r)
	default:
		r.Error(unix.ENOSYS)
	}
}

// wait runs f, which answers r, in a goroutine of its own.
func (t *tree) wait(r *fuse.Request, f func(ctx context.Context)) {
	t.mu.Lock()
	if t.waiting >= maxSlow || r.UID != 0 && t.slow[r.UID] >= maxSlowUser {
		t.mu.Unlock()
		r.Error(unix.EAGAIN)
		return
	}
	t.waiting++
	t.slow[r.UID]++
	t.mu.Unlock()
	uid := r.UID
	ctx := r.Context(t.ctx)
	t.wg.Go(func() {
		f(ctx)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.waiting--
		if t.slow[uid]--; t.slow[uid] == 0 {
			delete(t.slow, uid)
		}
	})
}

// hold makes tell wait: before requests are answered, the kernel may wait for them
// with the pages locked that it is to drop.
func (t *tree) hold() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held = &stale{}
}

// release tells what was held back.
func (t *tree) release() {
	t.mu.Lock()
	s := t.held
	t.held = nil
	t.mu.Unlock()
	if s != nil {
		t.tell(*s)
	}
}

// tell tells the kernel what it must not believe any more: files at once, names
// by and by, since a listing that waits for this may hold the lock of the directory.
func (t *tree) tell(s stale) {
	t.mu.Lock()
	if h := t.held; h != nil {
		h.gone, h.changed = append(h.gone, s.gone...), append(h.changed, s.changed...)
		t.mu.Unlock()
		return
	}
	t.mu.Unlock()
	for _, c := range s.changed {
		i := processID(c.node, c.pid)
		for f, changed := range c.files {
			if !changed {
				continue
			}
			_ = t.conn.Invalidate(i.remote(f, 0), f != fileDir) // fails only when the mount is gone
			if t.far.Load() {
				i := i
				i.far = true
				_ = t.conn.Invalidate(i.remote(f, 0), f != fileDir)
			}
		}
	}
	if len(s.gone) == 0 {
		return
	}
	t.forgetNames(s.gone)
}

// forgetNames has the forgetter make the kernel forget the names of processes.
func (t *tree) forgetNames(gone []*process) {
	t.mu.Lock()
	for _, q := range gone {
		t.forget[pidName(q.pid)] = rootID
	}
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// forgetter makes the kernel forget names until ctx ends. After a take-over it
// begins with the names of the processes of other nodes that the table does not have: the dead
// server may have told them. (Of a node that left meanwhile, the kernel believes them up to attrTTL.)
func (t *tree) forgetter(ctx context.Context, takeover bool) {
	if takeover {
		t.forgetAll(ctx)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
		}
		t.mu.Lock()
		names := t.forget
		t.forget = map[string]uint64{}
		t.mu.Unlock()
		for name, dir := range names {
			if ctx.Err() != nil {
				return
			}
			_ = t.conn.InvalidateEntry(dir, name)
		}
	}
}

func (t *tree) forgetAll(ctx context.Context) {
	for _, n := range t.table.nodes() {
		for pid, end := n.Window(); pid < end && ctx.Err() == nil; pid++ {
			if t.table.find(pid) == nil {
				_ = t.conn.InvalidateEntry(rootID, pidName(pid))
			}
		}
	}
}

// random is where a series of numbers begins that must not be those of an
// earlier process.
func random() uint64 { return rand.Uint64() }
