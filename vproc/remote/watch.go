package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"ssi/internal/id"
)

// maxFiles is how many pidfds of processes elsewhere there are at a time, and
// userFiles how many of one user other than root.
const (
	maxFiles  = 4096
	userFiles = 1024
)

// watchPause is the pause after a Wait that failed.
const watchPause = 100 * time.Millisecond

// files are the pidfds of processes elsewhere that were given out here.
type files struct {
	m      *Remote
	dir    string
	log    *slog.Logger
	ctx    context.Context // ends with close
	cancel context.CancelFunc
	wg     sync.WaitGroup // watchers

	mu       sync.Mutex
	closed   bool
	serial   uint64
	entries  map[*entry]bool
	watchers map[id.Node]*watcher
}

// watcher waits for the processes of one node.
type watcher struct {
	again context.CancelFunc // ends the Wait that is under way; nil: there is none
	dirty bool               // something changed since the list was made
}

// openFiles goes on with the pidfds that an earlier daemon gave out.
func (m *Remote) openFiles(dir string) (*files, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	f := &files{m: m, dir: dir, log: m.log, entries: map[*entry]bool{}, watchers: map[id.Node]*watcher{}}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	for _, n := range names {
		e, ok := parseName(n.Name())
		if !ok {
			continue
		}
		f.entries[e] = true
		f.serial = max(f.serial, e.serial)
	}
	f.sweep()
	f.mu.Lock()
	defer f.mu.Unlock()
	for e := range f.entries {
		if !e.ended {
			f.watch(e.node)
		} else if err := f.tell(e); err != nil {
			f.log.Error("the end of a process cannot be told", "op", "remote", "err", err)
		}
	}
	return f, nil
}

func (f *files) close() {
	f.mu.Lock()
	f.closed = true
	f.cancel()
	f.mu.Unlock()
	f.wg.Wait()
}

// add makes a pidfd of t, which lives on node n, for a user.
func (f *files) add(user uint32, t target, n id.Node, nonblock bool) (*os.File, error) {
	if f.full(user) != nil {
		f.sweep()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, unix.EIO
	}
	if err := f.fullLocked(user); err != nil {
		return nil, err
	}
	f.serial++
	e := &entry{user: user, target: t, serial: f.serial, node: n}
	file, err := f.make(e, nonblock)
	if err != nil {
		return nil, err
	}
	f.entries[e] = true
	f.watch(n)
	return file, nil
}

func (f *files) full(user uint32) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fullLocked(user)
}

func (f *files) fullLocked(user uint32) error {
	if len(f.entries) >= maxFiles {
		return unix.ENFILE
	}
	if user == 0 {
		return nil
	}
	n := 0
	for e := range f.entries {
		if e.user == user {
			n++
		}
	}
	if n >= userFiles {
		return unix.EMFILE
	}
	return nil
}

// sweep forgets the files that nobody has any more.
func (f *files) sweep() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for e := range f.entries {
		if !f.held(e) {
			f.forget(e)
		}
	}
}

// forget removes e; f.mu is held.
func (f *files) forget(e *entry) {
	delete(f.entries, e)
	if err := os.Remove(f.dir + "/" + e.name()); err != nil && !errors.Is(err, os.ErrNotExist) {
		f.log.Error("a pidfd cannot be removed", "op", "remote", "err", err)
	}
}

// watch sees to it that the processes of node n are waited for; f.mu is held.
func (f *files) watch(n id.Node) {
	if w := f.watchers[n]; w != nil {
		w.dirty = true
		if w.again != nil {
			w.again()
		}
		return
	}
	w := &watcher{}
	f.watchers[n] = w
	f.wg.Go(func() { f.run(n, w) })
}

// again has the list of node n looked through.
func (f *files) again(n id.Node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed && f.watchers[n] != nil {
		f.watch(n)
	}
}

// run waits for the processes of node n as long as somebody has a pidfd of one.
func (f *files) run(n id.Node, w *watcher) {
	for f.ctx.Err() == nil {
		f.sweep()
		entries, ctx := f.next(n, w)
		if ctx == nil {
			return
		}
		ended, err := f.m.askWait(ctx, n, entries)
		up := f.m.up(n)
		f.mu.Lock()
		changed := w.dirty
		w.again()
		w.again = nil
		for i, e := range entries {
			if !f.entries[e] || up && !slices.Contains(ended, i) {
				continue
			}
			if err := f.end(e); err != nil {
				f.log.Error("the end of a process cannot be told", "op", "remote", "err", err)
				f.forget(e)
			}
		}
		f.mu.Unlock()
		if err != nil && up && !changed {
			select {
			case <-f.ctx.Done():
			case <-time.After(watchPause):
			}
		}
	}
}

// next is what is to be waited for; without anything ctx is nil, and the watcher
// is no more.
func (f *files) next(n id.Node, w *watcher) (entries []*entry, ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for e := range f.entries {
		if e.node != n {
			continue
		}
		if !e.ended {
			entries = append(entries, e)
		}
	}
	if len(entries) == 0 || f.closed {
		delete(f.watchers, n)
		return nil, nil
	}
	w.dirty = false
	ctx, w.again = context.WithTimeout(f.ctx, 2*waitTime)
	return entries, ctx
}

// askWait waits at node n until a process has ended, and returns its place.
func (m *Remote) askWait(ctx context.Context, n id.Node, entries []*entry) ([]int, error) {
	ts := make([]target, len(entries))
	for i, e := range entries {
		ts[i] = e.target
	}
	var answer wrapperspb.BytesValue
	if err := m.cfg.Peers.Call(ctx, n, methodWait, &wrapperspb.BytesValue{Value: encodeTargets(ts)}, &answer); err != nil {
		return nil, err
	}
	ended, err := decodePlaces(answer.GetValue(), len(ts))
	if err != nil {
		return nil, fmt.Errorf("wait: node %d: %w", n, err)
	}
	return ended, nil
}
