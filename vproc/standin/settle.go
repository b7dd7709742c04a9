package standin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
	"ssi/internal/proc"
	"ssi/internal/sys"
)

// settle makes what the process of s needs, and itself, as stand-ins; or finds the
// one that holds its number.
func (m *Maker) settle(ctx context.Context, s *proc.Spec, terminal *os.File) (*standin, error) {
	if err := m.ensureRoot(ctx); err != nil {
		return nil, err
	}
	p := s.Place
	if p.Session == p.PID {
		parent, err := m.parentOf(p, p.ParentSession)
		if err != nil {
			return nil, err
		}
		return m.ensure(p.PID, parent, wish{group: p.PID, session: p.PID, parent: p.Parent})
	}
	if p.ParentSession != p.Session {
		p.Parent = 1 // a subreaper, in another session
	}
	leader, err := m.ensureLeader(p.Session)
	if err != nil {
		return nil, err
	}
	if s.Session {
		if err := m.giveTerminal(leader, terminal); err != nil {
			return nil, err
		}
	}
	parent, err := m.parentOf(p, p.Session)
	if err != nil {
		return nil, err
	}
	if p.Parent <= 1 {
		parent = leader // only makes it
	}
	for try := 1; ; try++ {
		if err := m.ensureGroup(p, leader, parent); err != nil {
			return nil, err
		}
		made, err := m.ensure(p.PID, parent, wish{group: p.Group, session: p.Session, parent: p.Parent})
		if !errors.Is(err, unix.EPERM) || try == 2 {
			return made, err
		}
		// The group that was there has ended just now.
	}
}

// ensureRoot starts the root if there is none.
func (m *Maker) ensureRoot(ctx context.Context) error {
	if m.living(m.root) != nil {
		return nil
	}
	fd, err := unix.MemfdCreate(proc.StandIn, unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	program := os.NewFile(uintptr(fd), proc.StandIn)
	defer func() { _ = program.Close() }()
	if _, err := program.Write(sys.Hollow()); err != nil {
		return err
	}
	m.arena.Reset()
	// 0 is its memory, 1 where it reports; 2 stays open, so that 3 is the lowest that is free.
	spec := &proc.Spec{Argv: []string{proc.StandIn}, Path: "/proc/self/fd/2", Dir: "/", Umask: 0o77}
	pid, pidfd, err := m.c.Spawn.Spawn(ctx, spec, []*os.File{m.memory, m.toUs, program})
	if err != nil {
		return err
	}
	defer func() { _ = pidfd.Close() }()
	own, err := unix.FcntlInt(pidfd.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	r := &standin{pid: pid, parent: 1, group: pid, session: pid, pidfd: own}
	if err := m.arena.Await(sys.First, orderTime); err != nil {
		_ = unix.PidfdSendSignal(own, unix.SIGKILL, nil, 0)
		_ = unix.Close(own)
		return fmt.Errorf("the first stand-in does not start: %w", err)
	}
	m.root = pid
	m.take(r)
	sh := m.sheet()
	sh.order(0, unix.SYS_PRCTL, unix.PR_SET_NAME, sh.text(proc.StandIn))
	return m.carryOut(r, sh)
}

// wish is where a stand-in is to stand; parent 1: below PID 1.
type wish struct{ group, session, parent int32 }

// ensureLeader finds or makes the stand-in that leads a session.
func (m *Maker) ensureLeader(session int32) (*standin, error) {
	return m.ensure(session, m.all[m.root], wish{group: session, session: session, parent: 1})
}

// parentOf finds or makes the stand-in for the parent of a process of a session; it
// is the root if that is PID 1.
func (m *Maker) parentOf(p proc.Place, session int32) (*standin, error) {
	if p.Parent <= 1 {
		return m.all[m.root], nil
	}
	if id.PID(session).Home() == 0 { // it is not that of the process, so any will do
		session = p.Parent
	}
	leader, err := m.ensureLeader(session)
	if err != nil || leader.pid == p.Parent {
		return leader, err
	}
	switch has := m.living(p.Parent); {
	case has == nil:
	case has.session != session:
		return nil, unplaceable("the parent %d is of session %d here, not %d", p.Parent, has.session, session)
	case has.tty == leader.tty:
		return has, nil
	case m.hasChildren(has.pid):
		return nil, unplaceable("the parent %d does not have the terminal of its session", p.Parent)
	default: // only what it makes from now on would have it
		m.end(has)
	}
	group := p.Parent
	if g := m.living(p.ParentGroup); g != nil && g.session == session && g.group == g.pid {
		group = p.ParentGroup
	}
	return m.ensure(p.Parent, leader, wish{group: group, session: session, parent: leader.pid})
}

// ensureGroup finds or makes the leader of a process group.
func (m *Maker) ensureGroup(p proc.Place, leader, parent *standin) error {
	if p.Group == p.PID || !errors.Is(unix.Kill(-int(p.Group), 0), unix.ESRCH) { // it exists
		return nil
	}
	by := leader
	if p.GroupParent == parent.pid {
		by = parent
	}
	_, err := m.ensure(p.Group, by, wish{group: p.Group, session: p.Session, parent: by.pid})
	if errors.Is(err, unix.EEXIST) {
		return nil // the leader has ended: the number is held by the members
	}
	return err
}

// ensure finds the stand-in pid, or has by make it: as its child, or below PID 1,
// which is the parent of by then.
func (m *Maker) ensure(pid int32, by *standin, w wish) (*standin, error) {
	if has := m.living(pid); has != nil {
		if has.session != w.session || has.parent != max(w.parent, 1) && has.pid != has.session {
			return nil, unplaceable("%d is held here for another place: %+v", pid, *has)
		}
		if has.tty != by.tty && has.session == by.session {
			return nil, unplaceable("%d does not have the terminal of its session", pid)
		}
		if has.group != w.group {
			return has, m.join(has, w)
		}
		return has, nil
	}
	m.awaitEnd(pid)
	if len(m.all) >= maxStandIns {
		return nil, unplaceable("there are %d stand-ins, which is the limit", maxStandIns)
	}
	flags, exit := uint64(0), unix.SIGCHLD
	if w.parent <= 1 {
		if by.parent != 1 {
			return nil, unplaceable("%d is no child of PID 1 here", by.pid)
		}
		flags, exit = unix.CLONE_PARENT, 0
	}
	e, made, err := m.clone(by, pid, flags, exit, w)
	for try := 0; e == unix.EEXIST && try < cloneTries; try++ {
		// A call in the name of its owner has the number for some microseconds (sys.Deputize).
		time.Sleep(cloneAgain)
		e, made, err = m.clone(by, pid, flags, exit, w)
	}
	switch {
	case err != nil:
		return nil, err
	case e != 0:
		return nil, unplaceable("process %d: %w", pid, e)
	}
	s := &standin{pid: pid, parent: max(w.parent, 1), group: w.group, session: w.session}
	if w.session != pid {
		s.tty = by.tty
	}
	if s.pidfd, err = unix.PidfdOpen(int(pid), 0); err != nil {
		return nil, unplaceable("process %d: %w", pid, err)
	}
	m.take(s)
	if made != 0 {
		m.end(s)
		return nil, unplaceable("process %d in group %d of session %d: %w", pid, w.group, w.session, made)
	}
	return s, nil
}

// How often a number that is in use is tried again, and after what time.
const (
	cloneTries = 5
	cloneAgain = 100 * time.Microsecond
)

// clone has by make the stand-in pid. e is the error of clone3(2); with placed the
// process was made, but is not where w wishes.
func (m *Maker) clone(by *standin, pid int32, flags uint64, exit unix.Signal, w wish) (e, placed unix.Errno, err error) {
	sh := m.sheet()
	clone := sys.CloneArgs(flags, exit, sh.put(int32Bytes(pid)), 1)
	made := sh.order(sys.Forks|sys.Needed, unix.SYS_CLONE3, sh.put(clone), uint64(len(clone)))
	var move int
	if w.session == pid {
		move = sh.order(sys.Needed, unix.SYS_SETSID)
	} else {
		move = sh.order(sys.Needed, unix.SYS_SETPGID, 0, uint64(w.group))
	}
	if err := m.carryOut(by, sh); err != nil {
		return 0, 0, err
	}
	if e, err = m.awaitResult(by, made); e != 0 || err != nil {
		return e, 0, err
	}
	_, placed, ran := m.arena.Result(move)
	if !ran {
		placed = unix.ESRCH
	}
	return 0, placed, nil
}

// awaitEnd waits a little if pid is a stand-in that was killed and not reaped yet.
func (m *Maker) awaitEnd(pid int32) {
	const patience = 2 * time.Second
	killed, ok := m.dying[pid]
	if !ok {
		return
	}
	for unix.Kill(int(pid), 0) == nil && time.Since(killed) < patience {
		time.Sleep(100 * time.Microsecond) // of its parent, or PID 1
	}
	delete(m.dying, pid)
}

// join moves a stand-in to a process group.
func (m *Maker) join(s *standin, w wish) error {
	sh := m.sheet()
	i := sh.order(0, unix.SYS_SETPGID, 0, uint64(w.group))
	if err := m.carryOut(s, sh); err != nil {
		return err
	}
	if _, e, _ := m.arena.Result(i); e != 0 {
		return unplaceable("process %d in group %d: %w", s.pid, w.group, e)
	}
	s.group = w.group
	return nil
}
