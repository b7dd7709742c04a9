package spawn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"ssi/internal/keeper"
	"ssi/internal/proc"
	"ssi/internal/sys"
)

// listenFD is the descriptor of the listening socket, which PID 1 passes.
const listenFD = 3

// server is the state of the role's one thread.
type server struct {
	log  *slog.Logger
	exe  string
	nice int
	hard bool   // it may change hard limits, and change them back
	buf  []byte // of the last request

	views Views
}

// Views are mount namespaces for new processes.
type Views struct {
	Users *os.File // that of the role's thread; nil: there is no other
	Local *os.File // of those that are to see this node only: those with LocalViewEnv
}

// LocalViewEnv is the variable that asks for Views.Local, if it is not empty.
const LocalViewEnv = "SSI_LOCALVIEW"

// Run is the role spawn: it serves the socket that PID 1 passed to it until
// SIGTERM ends the process, and returns the exit status if it cannot. Before the
// first request prepare makes the thread what the new processes inherit from it;
// with an error the role ends, to be started anew. nil: nothing is to be made.
func Run(log *slog.Logger, prepare func(keep *keeper.Client) (Views, error)) int {
	runtime.LockOSThread()
	// Umask and working directory of this thread alone; see unshare(2).
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		log.Error("spawn role", "op", "unshare", "err", err)
		return 1
	}
	if dir := os.Getenv(keeper.CgroupEnv); dir != "" {
		// Before the first process is created: a fence kills the cgroup.
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			log.Error("spawn role cannot enter its cgroup", "op", "spawn", "err", err)
			return 1
		}
	}
	proc.DefaultSignals() // and a log that nobody reads (SIGPIPE) may not end the role
	unix.CloseOnExec(listenFD)
	if err := unix.SetNonblock(listenFD, false); err != nil {
		log.Error("spawn role: no socket from PID 1 (only `ssi init` starts this role)", "op", "spawn", "err", err)
		return 1
	}
	keep, err := keeper.Open(log, nil)
	if err != nil {
		log.Error("spawn role", "op", "keeper", "err", err)
		return 1
	}
	defer func() { _ = keep.Close() }()
	exe, err := os.Executable()
	if err != nil {
		exe = "/proc/self/exe"
	}
	nice, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		nice = 20 // the system call returns 20-nice
	}
	var views Views
	if prepare != nil {
		if views, err = prepare(keep); err != nil {
			log.Error("spawn role", "op", "prepare", "err", err)
			return 1
		}
	}
	sys.ReleaseText() // most of what the start of the program touched is never used again
	s := &server{log: log, exe: exe, nice: 20 - nice, hard: mayRaiseLimits(), views: views}
	if !s.hard {
		log.Warn("without CAP_SYS_RESOURCE remote commands get the soft limits of their callers only, not the hard ones", "op", "spawn")
	}
	for {
		fd, _, err := unix.Accept4(listenFD, unix.SOCK_CLOEXEC)
		if err == unix.EINTR || err == unix.ECONNABORTED {
			continue
		}
		if err != nil {
			log.Error("spawn role", "op", "accept", "err", err)
			return 1
		}
		if err := s.connection(fd); err != nil {
			log.Warn("request to the spawn role", "op", "spawn", "err", err)
		}
		_ = unix.Close(fd)
	}
}

// connection serves requests until the node role closes.
func (s *server) connection(fd int) error {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return err
	}
	if cred.Uid != 0 {
		return fmt.Errorf("process %d of user %d is refused: only root may ask", cred.Pid, cred.Uid)
	}
	for {
		spec, files, err := s.receive(fd)
		if err != nil || spec == nil {
			closeFDs(files)
			return err
		}
		pid, pidfd, failure := s.spawn(spec, files)
		closeFDs(files)
		if err := answer(fd, pid, pidfd, failure); err != nil {
			return err
		}
	}
}

// receive reads one request; spec is nil if there is no more.
func (s *server) receive(fd int) (spec *proc.Spec, files []int, err error) {
	var head [lenSize]byte
	var oob [128]byte
	n, oobn, flags, err := recvmsg(fd, head[:], oob[:])
	if err != nil || n == 0 {
		return nil, nil, err
	}
	if files, err = rightsOf(oob[:oobn]); err != nil {
		return nil, files, err
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return nil, files, errors.New("too many files with a request")
	}
	if err := readFull(fd, head[n:]); err != nil {
		return nil, files, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > proc.MaxSpec {
		return nil, files, proc.ErrTooLong
	}
	if cap(s.buf) < int(size) || cap(s.buf) > 1<<16 && size < 1<<14 {
		s.buf = make([]byte, size)
	}
	s.buf = s.buf[:size]
	if err := readFull(fd, s.buf); err != nil {
		return nil, files, err
	}
	spec, err = proc.Decode(s.buf)
	if err != nil {
		return nil, files, err
	}
	if want := filesOf(spec); len(files) != want {
		return nil, files, fmt.Errorf("request with %d files, needs %d", len(files), want)
	}
	return spec, files, nil
}

// filesOf is how many files come with a request: 0, 1, 2 and, for a session,
// the leader's control socket.
func filesOf(s *proc.Spec) int {
	if s.Session {
		return 4
	}
	return 3
}

func recvmsg(fd int, b, oob []byte) (n, oobn, flags int, err error) {
	for {
		n, oobn, flags, _, err = unix.Recvmsg(fd, b, oob, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			return n, oobn, flags, err
		}
	}
}

func readFull(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Read(fd, b)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return errors.New("the node role ended within a request")
		default:
			b = b[n:]
		}
	}
	return nil
}

// answer sends the reply; if nobody takes it, it ends the process.
func answer(fd int, pid int32, pidfd int, f *proc.Failure) error {
	var rights []byte
	if f == nil {
		rights = unix.UnixRights(pidfd)
		defer func() { _ = unix.Close(pidfd) }()
	}
	err := unix.Sendmsg(fd, appendReply(nil, pid, f), rights, nil, unix.MSG_NOSIGNAL)
	if err != nil && f == nil {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		return fmt.Errorf("process %d was ended again: %w", pid, err)
	}
	return err
}

// spawn creates the process.
func (s *server) spawn(spec *proc.Spec, files []int) (pid int32, pidfd int, f *proc.Failure) {
	restore, f := s.impose(spec)
	defer restore()
	if f != nil {
		return 0, -1, f
	}
	pidfd = -1
	attr := &syscall.ProcAttr{Env: spec.Env, Sys: &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_PARENT,
		PidFD:      &pidfd,
		Setsid:     true,
		Setctty:    spec.Session, // descriptor 0
		Credential: &syscall.Credential{Uid: spec.UID, Gid: spec.GID, Groups: spec.Groups},
	}}
	for _, fd := range files {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	run := *spec
	if spec.Session {
		place := placeForeground
		if spec.Background {
			place = placeBackground
		}
		run.Argv, run.Path = append([]string{s.exe, SessionRole, place, spec.Path}, spec.Argv...), ""
	}
	back, f := s.enterView(spec)
	if f != nil {
		return 0, -1, f
	}
	n, f := create(&run, attr)
	back()
	if f != nil {
		return 0, -1, f
	}
	if pidfd < 0 { // not before Linux 5.2
		return 0, -1, &proc.Failure{Op: "pidfd", Path: spec.Argv[0], Errno: unix.ENOSYS}
	}
	s.imposeLate(n, spec)
	return int32(n), pidfd, nil
}

// enterView goes to the mount namespace for the process; back returns from it.
func (s *server) enterView(spec *proc.Spec) (back func(), f *proc.Failure) {
	local := slices.ContainsFunc(spec.Env, func(v string) bool {
		value, ok := strings.CutPrefix(v, LocalViewEnv+"=")
		return ok && value != ""
	})
	if !local || s.views.Users == nil {
		return func() {}, nil
	}
	if err := unix.Setns(int(s.views.Local.Fd()), unix.CLONE_NEWNS); err != nil {
		return nil, failure("setns", spec, err)
	}
	return func() {
		if err := unix.Setns(int(s.views.Users.Fd()), unix.CLONE_NEWNS); err != nil {
			s.log.Error("the spawn role cannot return to its view", "op", "setns", "err", err)
			os.Exit(1) // it is started anew
		}
	}, nil
}

// impose sets on this thread and process what a new process inherits and
// nothing else can give it; restore undoes it.
func (s *server) impose(spec *proc.Spec) (restore func(), f *proc.Failure) {
	var undo []func()
	restore = func() {
		for i := len(undo) - 1; i >= 0; i-- {
			undo[i]()
		}
	}
	unix.Umask(int(spec.Umask)) // nothing else here makes files: it may stay
	if int(spec.Nice) != s.nice {
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, int(spec.Nice)); err != nil {
			return restore, failure("setpriority", spec, err)
		}
		undo = append(undo, func() { _ = unix.Setpriority(unix.PRIO_PROCESS, 0, s.nice) })
	}
	for _, l := range spec.Limits {
		want := unix.Rlimit{Cur: l.Cur, Max: l.Max}
		var have unix.Rlimit
		if s.afterwards(l) {
			continue
		}
		if err := unix.Getrlimit(int(l.Resource), &have); err != nil {
			return restore, failure("getrlimit", spec, err)
		}
		if !s.hard {
			want.Max = have.Max
			want.Cur = min(want.Cur, want.Max)
		}
		if have == want && l.Resource != unix.RLIMIT_NOFILE {
			continue
		}
		// The runtime raises the soft limit of open files for itself and lowers
		// it again in children, until it was set by hand: so always set it.
		if err := unix.Setrlimit(int(l.Resource), &want); err != nil {
			return restore, failure("setrlimit", spec, err)
		}
		undo = append(undo, func() { _ = unix.Setrlimit(int(l.Resource), &have) })
	}
	return restore, nil
}

// mayRaiseLimits reports whether this process has CAP_SYS_RESOURCE; see
// capabilities(7).
func mayRaiseLimits() bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&head, &data[0])
	return err == nil && data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// afterwards reports whether l would harm this role and is set on the process a
// moment after its start: processor time counts from the start of a process, and
// creating one takes descriptors. The process of another user needs the
// capability for that.
func (s *server) afterwards(l proc.Rlimit) bool {
	switch l.Resource {
	case unix.RLIMIT_NOFILE:
		return l.Cur < 64
	case unix.RLIMIT_CPU:
		var used unix.Rusage
		err := unix.Getrusage(unix.RUSAGE_SELF, &used)
		return s.hard || err != nil || l.Cur < uint64(used.Utime.Sec+used.Stime.Sec)+5
	}
	return false
}

func (s *server) imposeLate(pid int, spec *proc.Spec) {
	for _, l := range spec.Limits {
		if !s.afterwards(l) {
			continue
		}
		want := unix.Rlimit{Cur: l.Cur, Max: l.Max}
		if err := unix.Prlimit(pid, int(l.Resource), &want, nil); err != nil && !errors.Is(err, unix.ESRCH) {
			s.log.Warn("a limit of the caller is not set", "op", "spawn", "pid", pid, "resource", l.Resource, "err", err)
		}
	}
}

func failure(op string, spec *proc.Spec, err error) *proc.Failure {
	e := errnoOf(err)
	if e == 0 {
		e = unix.EIO
	}
	return &proc.Failure{Op: op, Path: spec.Argv[0], Errno: e}
}
