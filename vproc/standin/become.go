package standin

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/proc"
	"ssi/internal/sys"
)

// Descriptors of a stand-in that becomes a process; see ensureRoot.
const (
	daemonFD = 3 // pidfd of this process
	firstFD  = 4 // to 6: those of the command
	statusFD = 7 // close-on-exec: says by its end that the program runs
)

// become has a stand-in become the process of s.
func (m *Maker) become(ctx context.Context, p *standin, s *proc.Spec, files []*os.File) (*os.File, error) {
	if leader := m.all[s.Place.Session]; s.Session && !s.Background && leader != nil && leader != p {
		if err := m.foreground(leader, s.Place.Group); err != nil {
			return nil, err
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	err = m.prepare(p, s, files, w)
	_ = w.Close()
	if err != nil {
		return nil, err
	}
	command := s.Command(s.Dir)
	sh := m.sheet()
	sh.order(0, unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, sh.put(make([]byte, 8)), 0, 8)
	argv, env := sh.texts(s.Argv), sh.texts(s.Env)
	var tries []try
	for _, file := range command.Files {
		t := try{file: file, direct: sh.order(0, unix.SYS_EXECVE, sh.text(file), argv, env)}
		tries = append(tries, t)
		if !command.Shell {
			continue
		}
		script := sh.texts(append([]string{"/bin/sh", file}, s.Argv[1:]...))
		tries[len(tries)-1].shell = sh.add(sys.Order{Nr: unix.SYS_EXECVE, Args: [6]uint64{sh.text("/bin/sh"), script, env}, After: unix.ENOEXEC})
	}
	sh.order(0, unix.SYS_WRITE, statusFD, sh.text("f"), 1)
	sh.order(0, unix.SYS_EXIT_GROUP, 127)
	own, err := unix.FcntlInt(uintptr(p.pidfd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	pidfd := os.NewFile(uintptr(own), "pidfd")
	if _, err := m.give(p, sh); err != nil {
		_ = pidfd.Close()
		return nil, err
	}
	end := time.Now().Add(orderTime)
	if d, ok := ctx.Deadline(); ok {
		end = d
	}
	_ = r.SetReadDeadline(end)
	_, err = io.ReadFull(r, make([]byte, 1))
	switch {
	case errors.Is(err, io.EOF):
		return pidfd, nil
	case err == nil:
		err = m.why(&command, tries)
	}
	_ = pidfd.Close()
	return nil, err
}

// prepare gives p all of s but the program; w is the status pipe's end.
func (m *Maker) prepare(p *standin, s *proc.Spec, files []*os.File, w *os.File) error {
	sh := m.sheet()
	sh.order(0, unix.SYS_CLOSE_RANGE, daemonFD, 1<<32-1, 0)
	needed := []int{sh.order(sys.Needed, unix.SYS_PIDFD_OPEN, uint64(os.Getpid()))}
	for _, f := range append(files[:3:3], w) {
		raw, err := f.SyscallConn()
		if err != nil {
			return err
		}
		if err := raw.Control(func(fd uintptr) {
			needed = append(needed, sh.order(sys.Needed, unix.SYS_PIDFD_GETFD, daemonFD, uint64(fd)))
		}); err != nil {
			return err
		}
	}
	for i := range uint64(3) {
		needed = append(needed, sh.order(sys.Needed, unix.SYS_DUP3, firstFD+i, i, 0))
	}
	sh.order(0, unix.SYS_CLOSE_RANGE, daemonFD, statusFD-1, 0)
	if s.Session && s.Place.Session == p.pid {
		needed = append(needed, sh.order(sys.Needed, unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 0))
	}
	sh.order(0, unix.SYS_UMASK, uint64(s.Umask))
	needed = append(needed, sh.order(sys.Needed, unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, uint64(int64(s.Nice))))
	m.limits(sh, s)
	for sig := range 64 {
		if s.Ignored>>sig&1 != 0 {
			ignore := binary.NativeEndian.AppendUint64(nil, 1) // SIG_IGN, and nothing else
			sh.order(0, unix.SYS_RT_SIGACTION, uint64(sig+1), sh.put(append(ignore, make([]byte, 24)...)), 0, 8)
		}
	}
	groups := make([]byte, 0, 4*len(s.Groups))
	for _, g := range s.Groups {
		groups = binary.NativeEndian.AppendUint32(groups, g)
	}
	uid, gid := uint64(s.UID), uint64(s.GID)
	needed = append(needed,
		sh.order(sys.Needed, unix.SYS_SETGROUPS, uint64(len(s.Groups)), sh.put(groups)),
		sh.order(sys.Needed, unix.SYS_SETRESGID, gid, gid, gid),
		sh.order(sys.Needed, unix.SYS_SETRESUID, uid, uid, uid))
	chdir := sh.order(sys.Needed, unix.SYS_CHDIR, sh.text(s.Dir))
	if err := m.carryOut(p, sh); err != nil {
		return err
	}
	for _, i := range needed {
		if _, e, ran := m.arena.Result(i); e != 0 || !ran {
			return unplaceable("step %d of %s: %w", i, p, e)
		}
	}
	if _, e, _ := m.arena.Result(chdir); e != 0 {
		return &proc.Failure{Op: "chdir", Path: s.Dir, Errno: e}
	}
	return nil
}

// limits orders the resource limits of s: the hard ones too, or, if that is not
// permitted, the soft ones within the hard ones that are there.
func (m *Maker) limits(sh *sheet, s *proc.Spec) {
	pair := func(cur, most uint64) uint64 {
		return sh.put(binary.NativeEndian.AppendUint64(binary.NativeEndian.AppendUint64(nil, cur), most))
	}
	for _, l := range s.Limits {
		var own unix.Rlimit
		if err := unix.Getrlimit(int(l.Resource), &own); err != nil {
			continue
		}
		sh.order(0, unix.SYS_PRLIMIT64, 0, uint64(l.Resource), pair(l.Cur, l.Max), 0)
		sh.add(sys.Order{
			Nr: unix.SYS_PRLIMIT64, Args: [6]uint64{0, uint64(l.Resource), pair(min(l.Cur, own.Max), own.Max), 0}, After: unix.EPERM,
		})
	}
}

// try is one file that the command may mean, and the orders that try it.
type try struct {
	file          string
	direct, shell int // shell is 0 if there is none
}

// why tells as execvp(3) does why none of the files was executed.
func (m *Maker) why(c *proc.Command, tries []try) *proc.Failure {
	f := c.NotFound()
	for _, t := range tries {
		_, e, _ := m.arena.Result(t.direct)
		if _, se, ran := m.arena.Result(t.shell); t.shell > 0 && ran {
			e = se
		}
		if f = c.Next(f, t.file, e); f.Final() {
			break
		}
	}
	return f
}
