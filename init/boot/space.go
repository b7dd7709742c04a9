package boot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/keeper"
	"ssi/internal/sys"
)

const (
	// readyTime is how long a login asks whether this machine serves as a node.
	readyTime = 2 * time.Second
	// enterTime is how long it may take to enter the process space. Beyond it the
	// login is one of this machine alone.
	enterTime = 10 * time.Second
)

// Space lets logins on the console into the process space of the cluster. What is
// nil: there is none.
type Space struct {
	// Ready reports whether this machine serves as a node now; why says what the user
	// should know if it does not.
	Ready func(ctx context.Context) (ready bool, why string)
	// Enter puts the calling thread, and what it creates, into the process space. The
	// thread is locked and has a root and a working directory of its own
	// (CLONE_FS). With an error the thread is not used any more.
	Enter func(keep *keeper.Client) error

	limit time.Duration // instead of enterTime
}

// start starts a program in the process space, as the leader of a new session whose
// terminal is the first of files. An error says why that cannot be, and that
// nothing was started: the login must not depend on the cluster.
func (s Space) start(ctx context.Context, log *slog.Logger, argv, env []string, files []uintptr) (pid int, err error) {
	keep, err := keeper.Open(log, nil)
	if err != nil {
		return 0, err
	}
	if s.Ready == nil || s.Enter == nil {
		return 0, errors.Join(errNotReady, keep.Close())
	}
	defer func() { _ = keep.Close() }()
	ask, cancel := context.WithTimeout(ctx, readyTime)
	ready, why := s.Ready(ask)
	cancel()
	if !ready && why == "" {
		return 0, errNotReady
	} else if !ready {
		return 0, errors.New(why)
	}
	limit := s.limit
	if limit == 0 {
		limit = enterTime
	}
	var claimed atomic.Bool // by the thread that starts the program, or by the one that does not wait any more
	type result struct {
		pid int
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = s.Enter(keep)
		}
		if err == nil {
			_, err = os.Readlink("/proc/self") // hangs if the role mount does
		}
		if err == nil && !claimed.CompareAndSwap(false, true) {
			err = context.DeadlineExceeded
		}
		r := result{err: err}
		if err == nil {
			r.pid, r.err = syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{
				Dir: "/", Env: env, Files: files,
				Sys: &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0},
			})
		}
		done <- r
	}()
	select {
	case r := <-done:
		return r.pid, r.err
	case <-time.After(limit):
	}
	if claimed.CompareAndSwap(false, true) {
		return 0, fmt.Errorf("the process space cannot be entered within %s", limit)
	}
	r := <-done
	return r.pid, r.err
}

// errNotReady is the error of a machine of which nobody expects to be a node.
var errNotReady = errors.New("this machine is no node of a cluster")

// wait waits for the end of a session.
func wait(pid int) {
	sys.ReleaseText() // of this process only the wait is left
	for {
		var ws unix.WaitStatus
		if _, err := unix.Wait4(pid, &ws, 0, nil); err != unix.EINTR {
			return
		}
	}
}

// RunLogin is the role login, which agetty(8) executes in place of login(1): it runs
// that, with the arguments args, in the process space of the cluster, so that who logs
// in on the console sees and reaches the processes of all nodes; or, where this machine
// does not serve as a node, here. It returns the exit status.
func RunLogin(log *slog.Logger, space Space, args []string) int {
	dirs := programDirs()
	program := find(dirs, "login")
	if program == "" {
		log.Error("nobody can log in here: login(1) is not installed", "op", "login")
		return StatusNoLogin
	}
	argv := append([]string{program}, args...)
	pid, err := space.start(context.Background(), log, argv, userEnv(), []uintptr{0, 1, 2})
	if err == nil {
		wait(pid)
		return 0
	}
	hereOnly(os.Stdout, log, err)
	err = unix.Exec(program, argv, userEnv())
	log.Error("start login", "op", "login", "err", err)
	return 1
}

// hereOnly tells a user, if it matters, why a session is one of this machine alone.
func hereOnly(tty *os.File, log *slog.Logger, why error) {
	if errors.Is(why, errNotReady) {
		return
	}
	log.Info("a login sees this node only", "op", "login", "err", why)
	_, _ = fmt.Fprintf(tty, "This login sees the processes of this machine only: %s\r\n", cut(why.Error()))
}

// userEnv is the environment without what is between roles.
func userEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return name == KmsgEnv || name == keeper.FDEnv || name == keeper.CgroupEnv
	})
}
