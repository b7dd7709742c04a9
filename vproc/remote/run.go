package remote

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
	"ssi/internal/sys"
	"ssi/vproc/call"
)

// identity is the caller of r for a deputy here.
//
// Its PID is taken if it means it here: the PID of a process of window 0 says nothing
// here, on the caller's own node the caller has it, and at the home of one that was
// placed its surrogate. If something stands for the caller here, the deputy gets
// another PID.
func (m *Remote) identity(c *call.Caller) sys.Identity {
	who := sys.Identity{UID: c.UID, EUID: c.EUID, GID: c.GID, EGID: c.EGID, Groups: c.Groups, Caps: c.Caps & m.caps}
	// Groups count in none of the calls that are executed.
	who.Self = m.root && c.UID|c.EUID|c.GID|c.EGID == 0 && who.Caps == m.caps
	if home := id.PID(c.PID).Home(); c.Node != m.self && home != 0 && home != m.self {
		who.PID = int(c.PID)
	}
	return who
}

// deputize makes calls in the name of who. Calls of one process are made one after
// the other, because only one deputy can have its PID.
func (m *Remote) deputize(who sys.Identity, calls []sys.Call) error {
	if who.PID != 0 {
		defer m.turns.take(who.PID)()
	}
	return sys.Deputize(who, calls)
}

// turns are taken by PID.
type turns struct {
	mu   sync.Mutex
	held map[int]*turn
}

type turn struct {
	mu    sync.Mutex
	users int
}

// take waits for the turn of pid and returns what ends it.
func (t *turns) take(pid int) (leave func()) {
	t.mu.Lock()
	one := t.held[pid]
	if one == nil {
		one = &turn{}
		t.held[pid] = one
	}
	one.users++
	t.mu.Unlock()
	one.mu.Lock()
	return func() {
		one.mu.Unlock()
		t.mu.Lock()
		defer t.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(t.held, pid)
		}
	}
}

// execute has this kernel carry out r, whose target is checked: one process, or
// those of a group, a user or everyone that are here. file is the target of a call
// by pidfd.
func (m *Remote) execute(ctx context.Context, r *call.Request, file *target) (call.Reply, error) {
	run := func(s *slot) (call.Reply, error) { return m.run(r, file, s) }
	if manner(r) == once {
		return m.answers.do(ctx, r, run)
	}
	return run(nil)
}

// run executes r; what is kept of it goes to s, which is nil if nothing is.
func (m *Remote) run(r *call.Request, file *target, s *slot) (call.Reply, error) {
	switch t := r.Target(); t.Kind {
	case call.OfProcess:
		return m.runOne(r, s)
	case call.OfGroup, call.OfUser, call.Everyone:
		return m.runMany(r, t, s)
	case call.ByFile:
		fd, err := m.openTarget(file)
		if err != nil {
			return call.Reply{Errno: unix.ESRCH}, nil
		}
		defer func() { _ = unix.Close(fd) }()
		here := *r
		here.Args[0] = uint64(fd)
		return m.runCall(&here, m.identity(&r.Caller), s)
	}
	return call.Reply{}, unix.EINVAL
}

// runOne executes a call that means one process.
func (m *Remote) runOne(r *call.Request, s *slot) (call.Reply, error) {
	if manner(r) == asks {
		return askKernel(r)
	}
	who := m.identity(&r.Caller)
	if r.Nr == call.Kill && m.continues(r, int(r.Int(0))) {
		who.Caps |= 1 << unix.CAP_KILL & m.caps
	}
	return m.runCall(r, who, s)
}

// runCall executes r as it is, in the name of who.
func (m *Remote) runCall(r *call.Request, who sys.Identity, s *slot) (call.Reply, error) {
	var kept []byte
	if s != nil {
		kept = s.out()
	} else if allowed(r, who.Caps) {
		return askKernel(r)
	}
	c, err := systemCall(r, kept)
	if err != nil {
		return call.Reply{}, err
	}
	calls := []sys.Call{c}
	if s != nil {
		calls[0].Kept = s.ret()
		calls = append([]sys.Call{beginning(s)}, calls...)
	}
	if err := m.deputize(who, calls); err != nil {
		if s == nil && errors.Is(err, sys.ErrDeputyLost) {
			return call.Reply{Errno: unix.EIO}, nil
		}
		return call.Reply{}, err
	}
	return replyOf(r, &calls[len(calls)-1]), nil
}

// allowed tells whether a call that changes nothing is the caller's right whoever
// the process belongs to, so that this process is told the same: kill_ok_by_cred in
// kernel/signal.c, check_prlimit_permission in kernel/sys.c. kill(-1) leaves out who
// calls it.
func allowed(r *call.Request, caps uint64) bool {
	switch {
	case manner(r) != judged || everyone(r):
		return false
	case r.Nr == call.Prlimit64:
		return caps&(1<<unix.CAP_SYS_RESOURCE) != 0
	}
	return caps&(1<<unix.CAP_KILL) != 0
}

// askKernel makes a call that changes nothing as this process.
func askKernel(r *call.Request) (call.Reply, error) {
	c, err := systemCall(r, nil)
	if err == nil {
		err = sys.Make(&c)
	}
	if err != nil {
		return call.Reply{}, err
	}
	return replyOf(r, &c), nil
}

// beginning is the call by which a deputy notes that it begins.
func beginning(s *slot) sys.Call { return sys.Call{Nr: unix.SYS_GETPID, Kept: s.begun()} }

// continues tells whether r sends SIGCONT to a process of the caller's session:
// anybody may (check_kill_permission in kernel/signal.c), but the deputy is in
// another one.
func (m *Remote) continues(r *call.Request, pid int) bool {
	if r.Int(1) != int32(unix.SIGCONT) || id.PID(r.Caller.SID).Home() == 0 {
		return false
	}
	sid, err := unix.Getsid(pid)
	return err == nil && sid == int(r.Caller.SID)
}
