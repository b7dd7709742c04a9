package remote

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"ssi/internal/sys"
	"ssi/vproc/call"
)

// maxMembers is how many processes or threads of this node one call reaches. A
// node has 32,768 PIDs, see id.PIDShift, and those of window 0.
const maxMembers = 65536

// killRounds is how often the processes are listed for a signal that ends or stops
// them, until there is no new one: what they create meanwhile must not get away.
const killRounds = 8

// runMany executes a call to a group, a user or everyone for what is here. If the
// kernel's own way reaches nobody that is protected, it goes; otherwise the
// processes are called one by one, and a process that is created meanwhile may
// miss it (but see killRounds).
func (m *Remote) runMany(r *call.Request, t call.Target, s *slot) (call.Reply, error) {
	here := named(r, t)
	switch {
	case m.reaches(r, t), t.Kind == call.Everyone && m.ofSession(r):
		return m.oneByOne(r, t, s)
	case manner(r) == asks:
		return askKernel(here)
	}
	who := m.identity(&r.Caller)
	if t.Kind == call.OfGroup && m.ofSession(r) && m.groupContinues(r, int(t.ID)) {
		who.Caps |= 1 << unix.CAP_KILL & m.caps
	}
	return m.runCall(here, who, s)
}

// ofSession tells whether r sends SIGCONT, which the caller's session may get from
// it whoever the processes belong to.
func (m *Remote) ofSession(r *call.Request) bool {
	return r.Nr == call.Kill && r.Int(1) == int32(unix.SIGCONT)
}

// groupContinues is continues for a group: all of it is in one session.
func (m *Remote) groupContinues(r *call.Request, pgid int) bool {
	if _, err := unix.Getsid(pgid); err == nil {
		return m.continues(r, pgid)
	}
	all, err := listProcesses() // the leader is gone
	if err != nil {
		return false
	}
	i := slices.IndexFunc(all, func(p process) bool { return p.pgrp == pgid })
	return i >= 0 && m.continues(r, all[i].pid)
}

// named is r with the group or user it means in its arguments: 0 would mean the
// deputy's.
func named(r *call.Request, t call.Target) *call.Request {
	here := *r
	switch {
	case t.Kind == call.Everyone:
	case r.Nr == call.Kill:
		here.Args[0] = uint64(-t.ID)
	default:
		here.Args[1] = uint64(t.ID)
	}
	return &here
}

// only is r for one process or thread of those it means.
func only(r *call.Request, pid int) *call.Request {
	here := *r
	if r.Nr == call.Kill {
		here.Args[0] = uint64(pid)
	} else {
		row, _ := r.Nr.Row()
		here.Args[0], here.Args[1] = uint64(row.Self), uint64(pid)
	}
	return &here
}

// oneByOne executes r for each process it means but the protected ones and, for
// kill(-1), the caller.
func (m *Remote) oneByOne(r *call.Request, t call.Target, s *slot) (call.Reply, error) {
	if s != nil {
		sys.StoreKept(s.begun(), 0) // from here on nobody knows how far it came
	}
	rounds := 1
	if sig := unix.Signal(r.Int(1)); r.Nr == call.Kill && (sig == unix.SIGKILL || sig == unix.SIGSTOP) {
		rounds = killRounds
	}
	called := map[int]bool{}
	for _, p := range m.protected() {
		called[p] = true
	}
	if t.Kind == call.Everyone && r.Caller.Node == m.self {
		called[int(r.Caller.PID)] = true
	}
	var replies []call.Reply
	for range rounds {
		members, err := m.members(r, t, called)
		if err == nil && len(members) == 0 {
			break
		}
		for _, p := range members {
			called[p.pid] = true
		}
		var part []call.Reply
		if err == nil {
			part, err = m.callMembers(r, members)
			replies = append(replies, part...)
		}
		if err != nil {
			// Some may have been called: it is not to be said that nothing was done.
			m.log.Error("a call does not reach all", "op", r.Nr.String(), "peer", r.Caller.Node, "err", err)
			replies = append(replies, call.Reply{Errno: errnoOf(err)})
			break
		}
	}
	return combine(r, replies), nil
}

// callMembers executes r for each of members.
func (m *Remote) callMembers(r *call.Request, members []process) ([]call.Reply, error) {
	var plain, session []sys.Call
	for _, p := range members {
		c, err := systemCall(only(r, p.pid), nil)
		if err != nil {
			return nil, err
		}
		if m.ofSession(r) && m.continues(r, p.pid) {
			session = append(session, c)
		} else {
			plain = append(plain, c)
		}
	}
	who := m.identity(&r.Caller)
	strong := who
	strong.Caps |= 1 << unix.CAP_KILL & m.caps
	var replies []call.Reply
	for _, part := range []struct {
		who   sys.Identity
		calls []sys.Call
	}{{who, plain}, {strong, session}} {
		for calls := range slices.Chunk(part.calls, sys.MaxCalls) {
			err := m.deputize(part.who, calls)
			if err != nil && !errors.Is(err, sys.ErrDeputyLost) {
				return replies, err
			}
			for i := range calls {
				replies = append(replies, replyOf(r, &calls[i]))
			}
		}
	}
	return replies, nil
}

// protected is who is not to be reached by a call to many: this process, and those
// that the configuration names.
func (m *Remote) protected() []int {
	all := []int{os.Getpid()}
	if m.cfg.Protected != nil {
		all = append(all, m.cfg.Protected()...)
	}
	return all
}

// reaches tells whether the kernel's own way of r reaches someone protected.
func (m *Remote) reaches(r *call.Request, t call.Target) bool {
	return slices.ContainsFunc(m.protected(), func(pid int) bool {
		if t.Kind == call.OfGroup {
			pgid, err := unix.Getpgid(pid)
			return err == nil && pgid == int(t.ID)
		}
		uid, suid, err := userOf(pid)
		switch {
		case errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH):
			return false
		case err != nil:
			return true
		case t.Kind == call.OfUser:
			return int64(uid) == t.ID
		}
		c := &r.Caller
		return c.Caps&(1<<unix.CAP_KILL) != 0 || uid == c.UID || uid == c.EUID || suid == c.UID || suid == c.EUID || m.continues(r, pid)
	})
}

// process is what /proc says of one process, or of a thread of it.
type process struct{ pid, parent, pgrp int }

// members lists those here that r means and that are not in skip. Deputies,
// children of this process, are not.
func (m *Remote) members(r *call.Request, t call.Target, skip map[int]bool) ([]process, error) {
	all, err := listProcesses()
	if err != nil {
		return nil, err
	}
	self := os.Getpid()
	var members []process
	for _, p := range all {
		if skip[p.pid] || p.pid == 1 && t.Kind == call.Everyone || p.parent == self {
			continue
		}
		switch t.Kind {
		case call.OfGroup:
			if p.pgrp != int(t.ID) {
				continue
			}
		case call.OfUser:
			if uid, _, err := userOf(p.pid); err != nil || int64(uid) != t.ID {
				continue
			}
		}
		if r.Nr == call.Kill {
			members = append(members, p)
			continue
		}
		for _, tid := range threadsOf(p.pid) { // priorities are those of threads
			members = append(members, process{tid, p.parent, p.pgrp})
		}
	}
	if len(members) > maxMembers {
		return nil, fmt.Errorf("%d processes: %w", len(members), unix.EAGAIN)
	}
	return members, nil
}

// listProcesses lists /proc; who ends meanwhile may be missing.
func listProcesses() ([]process, error) {
	numbers, err := numbersIn("/proc")
	if err != nil {
		return nil, err
	}
	all := make([]process, 0, len(numbers))
	for _, pid := range numbers {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			continue
		}
		p, ok := parseStat(b)
		if ok {
			p.pid = pid
			all = append(all, p)
		}
	}
	return all, nil
}

// parseStat reads parent and group of proc_pid_stat(5). The name, which may hold
// anything, ends with the last parenthesis.
func parseStat(b []byte) (p process, ok bool) {
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 3 {
		return p, false
	}
	parent, err := strconv.Atoi(string(fields[1]))
	pgrp, err2 := strconv.Atoi(string(fields[2]))
	return process{parent: parent, pgrp: pgrp}, err == nil && err2 == nil
}

func threadsOf(pid int) []int {
	tids, err := numbersIn("/proc/" + strconv.Itoa(pid) + "/task")
	if err != nil {
		return []int{pid}
	}
	return tids
}

func numbersIn(dir string) ([]int, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	var numbers []int
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil && n > 0 {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, err
}

// userOf is the real and the saved user of a process.
func userOf(pid int) (uid, suid uint32, err error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, 0, err
	}
	_, rest, ok := bytes.Cut(b, []byte("\nUid:"))
	var euid uint32
	if !ok {
		return 0, 0, fmt.Errorf("status of process %d: %w", pid, unix.EINVAL)
	}
	_, err = fmt.Sscan(string(rest[:min(len(rest), 64)]), &uid, &euid, &suid)
	return uid, suid, err
}
