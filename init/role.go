package pid1

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/keeper"
	"ssi/internal/proc"
)

// Back-off of a role that ends: firstDelay, doubled each time up to lastDelay,
// and back to firstDelay once it has lived for healthy.
const (
	firstDelay = 100 * time.Millisecond
	lastDelay  = 10 * time.Second
	healthy    = 10 * time.Second
)

// role is one of the processes that PID 1 keeps running.
type role struct {
	name     string
	args     []string
	oomScore int  // oom_score_adj(5): -1000 never killed, 0 like any program
	ends     bool // that it ends is no news
	off      bool // not started any more

	pid     int // 0: not running
	started time.Time
	delay   time.Duration
	due     time.Time // when to start it, if pid is 0

	// prepare gives the descriptors from 3 on and variables for the next life, and
	// what to do when that has ended; the descriptors are closed by start.
	prepare func() (files []*os.File, env []string, end func(), err error)
	end     func()
}

// start runs the role. An error makes it due again later.
func (r *role) start(exe string, now time.Time) error {
	files, env, end, err := r.prepare()
	if err != nil {
		r.retry(now)
		return fmt.Errorf("start role %s: %w", r.name, err)
	}
	defer keeper.CloseAll(files)
	null, err := os.Open(os.DevNull)
	if err != nil {
		end()
		r.retry(now)
		return fmt.Errorf("start role %s: %w", r.name, err)
	}
	attr := &syscall.ProcAttr{
		Env:   append(os.Environ(), env...),
		Files: []uintptr{null.Fd(), 1, 2},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	for _, f := range files {
		attr.Files = append(attr.Files, f.Fd())
	}
	pid, err := syscall.ForkExec(exe, append([]string{"ssi"}, r.args...), attr)
	_ = null.Close()
	if err != nil {
		end()
		r.retry(now)
		return fmt.Errorf("start role %s: %s: %w", r.name, exe, err)
	}
	r.pid, r.started, r.end = pid, now, end
	// Protection from the out-of-memory killer is inherited from PID 1.
	_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", strconv.AppendInt(nil, int64(r.oomScore), 10), 0)
	return nil
}

// exited notes the end of the role's process and when to start it again.
func (r *role) exited(now time.Time) {
	r.pid = 0
	r.end()
	if now.Sub(r.started) >= healthy {
		r.delay = 0
	}
	r.retry(now)
}

func (r *role) retry(now time.Time) {
	r.delay = min(max(2*r.delay, firstDelay), lastDelay)
	r.due = now.Add(r.delay)
}

func (r *role) signal(s unix.Signal) {
	if r.pid > 0 {
		_ = unix.Kill(r.pid, s)
	}
}

// exitOf makes the report of a wait4(2) result.
func exitOf(pid int, ws unix.WaitStatus, ru *unix.Rusage) proc.Exit {
	return proc.Exit{
		PID: int32(pid), Status: ws,
		UserTime: ru.Utime.Nano() / 1000, SystemTime: ru.Stime.Nano() / 1000, MaxRSS: ru.Maxrss,
	}
}

// describe is the end of a role in words.
func describe(ws unix.WaitStatus) string {
	if ws.Signaled() {
		return "killed by " + unix.SignalName(ws.Signal())
	}
	return "exit status " + strconv.Itoa(ws.ExitStatus())
}
