package procfs

import (
	"context"
	"strconv"

	"golang.org/x/sys/unix"

	"ssi/internal/fuse"
	"ssi/internal/id"
)

// complete calls f with what n stands for and its content. A file that was read
// for somebody and dropped since, or that a server before this one read, is read again,
// in the name of who asks now.
func (t *tree) complete(r *fuse.Request, gone unix.Errno, f func(o *object)) {
	o, ok := t.object(r.Node)
	if ok && o.remote {
		t.fresh.looked()
	}
	switch {
	case !ok:
		r.Error(gone)
	case o.from == nil || o.from.what != What_READ:
		f(&o)
	default:
		t.wait(r, func(ctx context.Context) {
			_, e := t.answer(ctx, r, r.Node, o.from)
			if e != 0 {
				r.Error(e)
				return
			}
			if o, ok = t.object(r.Node); !ok || o.from != nil {
				r.Error(gone)
				return
			}
			f(&o)
		})
	}
}

func (t *tree) getattr(r *fuse.Request) {
	t.complete(r, unix.ENOENT, func(o *object) { r.Attr(&o.attr, o.ttl) })
}

func (t *tree) read(r *fuse.Request) {
	t.complete(r, unix.ESRCH, func(o *object) {
		if o.err != 0 {
			r.Error(o.err)
			return
		}
		r.Content(o.content)
	})
}

// readlink answers where a link leads. Where a link of a process elsewhere leads
// is asked in the name of the caller, each time.
func (t *tree) readlink(r *fuse.Request) {
	switch r.Node {
	case selfID, threadSelfID:
		pid, ok := t.processOf(r.PID)
		if !ok { // a caller from outside, as for proc(5) itself
			r.Error(unix.ENOENT)
			return
		}
		if t.uncertain(pid) {
			t.wait(r, func(context.Context) {
				t.certain(pid)
				t.readSelf(r, pid)
			})
			return
		}
		t.readSelf(r, pid)
		return
	}
	o, ok := t.object(r.Node)
	switch {
	case !ok:
		r.Error(unix.ENOENT)
	case o.from == nil:
		r.Data(o.content)
	default:
		t.wait(r, func(ctx context.Context) {
			a, e := t.answer(ctx, r, r.Node, o.from)
			if e == 0 {
				e = a.err
			}
			if e != 0 {
				r.Error(e)
				return
			}
			r.Data(a.data)
		})
	}
}

func (t *tree) readSelf(r *fuse.Request, pid id.PID) {
	to := pidName(pid)
	if r.Node == threadSelfID {
		to += "/task/" + strconv.FormatUint(uint64(r.PID), 10)
	}
	r.Data([]byte(to))
}
