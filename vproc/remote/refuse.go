package remote

import (
	"context"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
	"ssi/vproc/call"
)

// The calls that do not go across nodes answer what a kernel says of a process that
// is not there, or that may not be touched:
//
//	call                      no such process   there is one
//	ptrace(TRACEME)           it means no other process: the caller's kernel goes on
//	ptrace(ATTACH, SEIZE)     ESRCH             EPERM
//	ptrace(anything else)     ESRCH             ESRCH: the caller does not trace it
//	process_vm_readv, writev  ESRCH             EPERM
//	kcmp, of two processes    ESRCH             EPERM
//	perf_event_open           ESRCH             EACCES
//	move_pages                ESRCH             EPERM
//	migrate_pages             ESRCH             EPERM
//	get_robust_list           ESRCH             EPERM
//
// Of a process of this node the kernel decides, also in kcmp if both are here.
const (
	ptraceTraceme = 0
	ptraceAttach  = 16
	ptraceSeize   = 0x4206
)

// refusal is whom a call means that does not go across nodes, nobody if the caller
// itself, and its error if they are there.
func refusal(r *call.Request) (pids []id.PID, e unix.Errno) {
	row, _ := r.Nr.Row()
	pids = []id.PID{id.PID(r.Int(row.PID))}
	switch r.Nr {
	case call.Kcmp:
		return append(pids, id.PID(r.Int(row.PID2))), unix.EPERM
	case call.PerfEventOpen:
		return pids, unix.EACCES
	case call.Ptrace:
		switch r.Int(0) {
		case ptraceTraceme:
			return nil, 0
		case ptraceAttach, ptraceSeize:
		default:
			return pids, unix.ESRCH
		}
	}
	return pids, unix.EPERM
}

// refuse answers a call that does not go across nodes and means a process of
// another one: see quickRefuse.
func (m *Remote) refuse(ctx context.Context, r *call.Request) call.Outcome {
	pids, e := refusal(r)
	for _, pid := range pids {
		if m.native(pid) {
			continue
		}
		if !m.up(m.place(pid)) {
			return absent(int(pid))
		}
		if reply := m.exists(ctx, r, pid); reply.Errno != 0 {
			return call.Outcome{Reply: reply}
		}
	}
	for _, pid := range pids { // those that are here
		if m.native(pid) && (pid <= 0 || unix.Kill(int(pid), 0) != nil) {
			return call.Fail(unix.ESRCH)
		}
	}
	return call.Fail(e)
}

// exists asks whether there is a process or thread.
func (m *Remote) exists(ctx context.Context, r *call.Request, pid id.PID) call.Reply {
	q := &call.Request{Nr: call.Getpgid, Args: [6]uint64{uint64(pid)}, Caller: r.Caller, Origin: r.Origin}
	reply, _ := m.askPlace(ctx, pid, m.place(pid), ask{r: q})
	return reply
}
