package rexec

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ssi/internal/api"
	"ssi/internal/id"
	"ssi/internal/proc"
	"ssi/internal/pty"
	"ssi/internal/sys"
	"ssi/vproc/standin"
)

// Places creates processes under the PID that their surrogate has at home, with the
// parent, process group and session that it has there (vproc/standin.Maker).
type Places interface {
	// Create creates a process in its Spec.Place. If that cannot be had, nothing was
	// made and the error is a *standin.Unplaceable.
	Create(ctx context.Context, s *proc.Spec, files []*os.File) (pid int32, pidfd *os.File, err error)
	// Foreground makes group the foreground of the terminal of a session.
	Foreground(session, group int32) error
	// Gone is told that a process at home has ended which may be a parent or leader here.
	Gone(pid int32)
	// Release is told that a process has ended.
	Release(pid int32)
}

// capKill is CAP_KILL of capabilities(7).
const capKill = 5

// spawn creates the process, under the caller's PID if that can be.
func (c *command) spawn(ctx context.Context, spec *proc.Spec) (pid int32, pidfd *os.File, err error) {
	if spec.Place.PID != 0 && c.s.c.Places != nil {
		pid, pidfd, err = c.s.c.Places.Create(ctx, spec, c.f.child[:3])
		if !isUnplaceable(err) {
			c.place = spec.Place
			c.f.closeControl() // it has no leader: a stand-in tells of it
			return pid, pidfd, err
		}
		c.s.log.Debug("a remote command gets a PID of this node", "op", "rexec", "peer", c.from, "pid", spec.Place.PID, "cause", err)
	}
	plain := *spec
	plain.Place = proc.Place{}
	return c.s.c.Spawn.Spawn(ctx, &plain, c.f.child)
}

// isUnplaceable reports whether nothing was made because the place cannot be had.
func isUnplaceable(err error) bool {
	var u *standin.Unplaceable
	return errors.As(err, &u)
}

// inform passes on a signal that the caller got.
func (c *command) inform(info *sys.Siginfo) {
	switch job := info.Code == sys.CodeKernel; {
	case c.place.PID == 0:
		c.signal(info.Signal)
	case job && c.s.represents(c):
		_ = unix.Kill(-int(c.place.Group), info.Signal)
	case job: // all members here got it by another one
	case info.Code < 0 && info.Code != siTKill:
		_ = c.p.sendInfo(info)
	default:
		c.p.sendAs(info)
	}
}

// siTKill is SI_TKILL of sigaction(2).
const siTKill = -6

func (p *process) sendInfo(info *sys.Siginfo) error {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) { err = sys.SendInfo(int(fd), info) }); cerr != nil {
		return cerr
	}
	return err
}

// sendAs sends a signal by kill(2), or tgkill(2), of the process that info names; if
// its PID is in use here, of one with another.
func (p *process) sendAs(info *sys.Siginfo) {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		who := sys.Identity{PID: int(info.PID), UID: info.UID, EUID: info.UID, Caps: 1 << capKill}
		kill := []sys.Call{{Nr: unix.SYS_PIDFD_SEND_SIGNAL, Args: [6]uint64{uint64(fd), uint64(info.Signal)}}}
		if info.Code == siTKill && p.alive() { // and not reaped before its end is reported
			kill[0] = sys.Call{Nr: unix.SYS_TGKILL, Args: [6]uint64{uint64(p.pid), uint64(p.pid), uint64(info.Signal)}}
		}
		if err := sys.Deputize(who, kill); err != nil || kill[0].Errno() != 0 {
			_ = unix.PidfdSendSignal(int(fd), info.Signal, nil, 0)
		}
	})
}

// represents reports whether c is the one of its process group by which signals of
// the terminal at home reach the members here: each of them gets these once.
func (s *Server) represents(c *command) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for pid, p := range s.running {
		if p.group == c.place.Group && pid < c.p.pid {
			return false
		}
	}
	return true
}

// front gives the terminal of a placed command to its process group or takes it.
// What the command itself made the foreground, as a shell does with its jobs, stays that.
func (c *command) front(background bool) {
	has, err := pty.ForegroundGroup(c.f.term)
	group := c.place.Group
	switch {
	case background:
		group = c.place.Session
	case err == nil && has != int(c.place.Session):
		return
	}
	if err := c.s.c.Places.Foreground(c.place.Session, group); err != nil {
		c.s.log.Debug("foreground of a terminal", "op", "rexec", "pid", c.p.pid, "err", err)
	}
}

// killed kills a placed command as its surrogate was. What has its terminal is hung up,
// as the leader of the session would do by its end: the leader here is a stand-in, and
// stays.
func (c *command) killed() {
	group := 0
	if c.f.term != nil {
		group, _ = pty.ForegroundGroup(c.f.term) // before the end of the command closes it
	}
	_ = c.p.send(unix.SIGKILL, 0)
	if group > 1 && group != int(c.place.Session) {
		_ = unix.Kill(-group, unix.SIGHUP)
		_ = unix.Kill(-group, unix.SIGCONT)
	}
}

// placeOf is where the caller stands, if a command on another node can take its
// place: it is in the process space, and all that must be known there has a number
// of the cluster. Otherwise it is none.
func placeOf(pid int32) (p proc.Place) {
	own, ok := proc.RelativesOf(pid)
	if !ok || !inCluster(pid) || !inCluster(own.Group) || !inCluster(own.Session) {
		return proc.Place{}
	}
	p = proc.Place{PID: pid, Parent: own.Parent, Group: own.Group, Session: own.Session}
	parent, ok := proc.RelativesOf(own.Parent)
	if !ok || !inCluster(own.Parent) {
		p.Parent = 1
	} else {
		p.ParentGroup, p.ParentSession = parent.Group, parent.Session
	}
	if leader, ok := proc.RelativesOf(own.Group); ok {
		p.GroupParent = leader.Parent
	}
	return p
}

func inCluster(pid int32) bool { return pid > 0 && id.PID(pid).Home() != 0 }

// inProcessSpace reports whether a process descends from the role spawn: it has the
// filter of the gate, and a view of its own.
func inProcessSpace(pid int32) bool {
	dir := "/proc/" + strconv.Itoa(int(pid))
	view, err := os.Readlink(dir + "/ns/mnt")
	if err != nil {
		return false
	}
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil || view == own {
		return false
	}
	const filtered = "2" // SECCOMP_MODE_FILTER
	return statusField(dir+"/status", "Seccomp") == filtered
}

// statusField is a field of proc_pid_status(5), or "".
func statusField(file, name string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// ignoredBy is which signals the caller ignores, as it was started with them. Go
// programs do not keep that of SIGQUIT, which shells ignore with SIGINT for what
// they run in the background.
func ignoredBy(call *api.Call) uint64 {
	v, err := strconv.ParseUint(statusField("/proc/"+strconv.Itoa(int(call.Peer.PID))+"/status", "SigIgn"), 16, 64)
	if err != nil {
		return 0
	}
	const hup, interrupt, quit = 1 << (unix.SIGHUP - 1), 1 << (unix.SIGINT - 1), 1 << (unix.SIGQUIT - 1)
	v &= hup | interrupt
	if v&interrupt != 0 {
		v |= quit
	}
	return v
}
