package procfs

import (
	"context"

	"golang.org/x/sys/unix"

	"ssi/internal/fuse"
)

// writers is what user 0 needs to count as root when it writes, as far as the roles have it: what decides at home
// about a file that tunes a process of others.
const writers = 1<<unix.CAP_SYS_RESOURCE | 1<<unix.CAP_SYS_NICE | 1<<unix.CAP_SYS_ADMIN |
	1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_AUDIT_CONTROL

// setattr answers as proc(5) does: modes and owners are the kernel's, and O_TRUNC means nothing.
func (t *tree) setattr(r *fuse.Request) {
	if split(r.Node).kind != kindRemote || r.Set&(fuse.SetMode|fuse.SetUID|fuse.SetGID) != 0 || r.Set&fuse.SetSize == 0 {
		r.Error(unix.EPERM)
		return
	}
	t.getattr(r)
}

// write has the node of a process write to one of its files, with one write(2) in the name of who writes.
// It is not interrupted and not repeated: when the answer is lost, it is EIO, and nobody knows.
func (t *tree) write(r *fuse.Request) {
	i := split(r.Node)
	if i.kind != kindRemote || i.file() >= len(files) || !files[i.file()].writable() {
		r.Error(unix.EINVAL) // as for a file of proc(5) that has no write
		return
	}
	if len(r.Input) == 0 {
		r.Written(0)
		return
	}
	t.wait(r, func(context.Context) {
		if t.table.on(i.node, i.pid) == nil {
			r.Error(unix.ESRCH)
			return
		}
		name := files[i.file()].name
		req := &FetchRequest{Caller: t.lookAtCaller(r, 1<<unix.CAP_SYS_PTRACE|writers&t.ids.caps), Pid: int32(i.pid), Path: name, What: What_WRITE, Data: r.Input}
		rep, e := t.fetch(t.ctx, i.node, req)
		t.answers.forget(i.node, i.pid, name)
		switch n := int(rep.GetWritten()); {
		case e != 0:
			r.Error(unix.EIO)
		case rep.GetErrno() != 0:
			r.Error(unix.Errno(rep.GetErrno()))
		case n == 0 || n > len(r.Input): // it never does that; a node of another version does not write at all
			r.Error(unix.EIO)
		default:
			r.Written(n)
		}
		// Only now: the kernel holds the pages while it waits for the answer. They have what was written,
		// which is not what is to be read.
		_ = t.conn.Invalidate(r.Node, true)
		t.fresh.refresh(t.ctx, listWait, false, false, i.node)
	})
}
