package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/sys"
)

// endTimeout is how long a supervisor may take to end in order.
const endTimeout = 20 * time.Second

// Lab is a running lab, seen from a process outside. Its methods may be used by
// several goroutines at once.
type Lab struct {
	Name string

	owner *os.File      // ends the lab when it is closed; nil if this process does not own it
	ended chan struct{} // closed when the supervisor that this process started ended; nil if it did not
	lost  func() error  // how it ended, nil if in order; valid after ended
}

// Start makes a lab and, unless o.NoWait is set, waits until all of its nodes are
// UP. Without o.Detach, the lab ends with Close and with this process.
func Start(ctx context.Context, o Options) (*Lab, error) {
	if err := precheck(); err != nil {
		return nil, err
	}
	if err := o.complete(); err != nil {
		return nil, err
	}
	if _, err := Sweep(); err != nil {
		return nil, err
	}
	lock, err := claim(ctx, o.Name)
	if err != nil {
		return nil, err
	}
	if o.VM != nil {
		err = o.VM.pack(ctx, &o)
	}
	var l *Lab
	if err == nil {
		l, err = launchSupervisor(&o, lock)
	}
	if err != nil {
		_ = removeRests(o.Name)
		_ = lock.Close()
		return nil, err
	}
	_ = lock.Close() // the supervisor holds it now
	if o.NoWait {
		return l, nil
	}
	if err := l.Wait(ctx, o.Timeout); err != nil {
		if errno.Is(err, errno.Unavailable) && l.gone() {
			err = errno.New(errno.Other, "lab", 0, "the supervisor ended (%v): %s", l.lost(), l.supervisorWords())
		}
		_ = l.Down(context.WithoutCancel(ctx)) // what matters is said
		return nil, err
	}
	return l, nil
}

// launchSupervisor starts the supervisor with the lock of its lab.
func launchSupervisor(o *Options, lock *os.File) (*Lab, error) {
	dir := dirOf(o.Name)
	raw, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, optionsFile), raw, 0o600); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	ul, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, socketFile), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("lab: control socket: %w", err)
	}
	ul.SetUnlinkOnClose(false)
	defer ul.Close()
	listener, err := ul.File()
	if err != nil {
		return nil, fmt.Errorf("lab: control socket: %w", err)
	}
	defer listener.Close()
	log, err := os.OpenFile(filepath.Join(dir, logFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	defer log.Close()
	var theirs, ours *os.File
	if o.Detach {
		theirs, err = os.Open(os.DevNull)
	} else {
		theirs, ours, err = os.Pipe()
	}
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	defer theirs.Close()
	cmd := &exec.Cmd{
		Path: o.Binary, Args: []string{"ssi", roleSupervisor, o.Name}, Dir: "/", Env: []string{"PATH=" + nodePath},
		Stdout: log, Stderr: log, ExtraFiles: []*os.File{lock, listener, theirs},
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
			Setsid:     true,
		},
	}
	if _, err := os.Stat(cmd.Path); err != nil { // removed since, as by `go run`
		cmd.Path = "/proc/self/exe"
	}
	err = sys.OnThread(func() error {
		if err := dropCapabilities(); err != nil {
			return err
		}
		return cmd.Start()
	})
	if err != nil {
		if ours != nil {
			_ = ours.Close()
		}
		return nil, fmt.Errorf("lab: start the supervisor: %w", err)
	}
	l := &Lab{Name: o.Name, owner: ours, ended: make(chan struct{})}
	var end error
	l.lost = func() error { return end }
	go func() { // ends with the supervisor; Close waits for it
		end = cmd.Wait()
		close(l.ended)
	}()
	return l, os.WriteFile(filepath.Join(dir, pidFile), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600)
}

// dropCapabilities takes from this thread, and so from all it starts, what would
// let a node change the host's clock or its modules.
func dropCapabilities() error {
	for _, c := range []uintptr{unix.CAP_SYS_TIME, unix.CAP_SYS_MODULE, unix.CAP_SYS_RAWIO} {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	return nil
}

// Attach connects to a running lab that it does not own.
func Attach(ctx context.Context, name string) (*Lab, error) {
	if err := precheck(); err != nil {
		return nil, err
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	l := &Lab{Name: name}
	c, err := l.dial(ctx)
	if err != nil {
		return nil, err
	}
	return l, c.Close()
}

// List gives the names of the running labs.
func List(ctx context.Context) ([]string, error) {
	all, err := names()
	if err != nil {
		return nil, err
	}
	running := all[:0]
	for _, name := range all {
		if l, err := Attach(ctx, name); err == nil {
			running = append(running, name)
			_ = l.Close()
		}
	}
	return running, nil
}

func (l *Lab) dial(ctx context.Context) (*api.Client, error) {
	c, err := api.DialPath(ctx, filepath.Join(dirOf(l.Name), socketFile))
	if err != nil {
		return nil, errno.New(errno.Unavailable, "lab", 0, "no lab named %q is running: `ssi lab%s up` starts one", l.Name, nameFlag(l.Name))
	}
	return c, nil
}

func (l *Lab) call(ctx context.Context, method string, params, result any) error {
	c, err := l.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Call(ctx, method, params, result)
}

// gone reports whether the supervisor that this process started ended, or ends
// right now.
func (l *Lab) gone() bool {
	if l.ended == nil {
		return false
	}
	select {
	case <-l.ended:
		return true
	case <-time.After(time.Second):
		return false
	}
}

// supervisorWords is the last line the supervisor wrote.
func (l *Lab) supervisorWords() string {
	raw, err := os.ReadFile(filepath.Join(dirOf(l.Name), logFile))
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return lines[len(lines)-1]
}

// Wait returns when all nodes that are on are UP.
func (l *Lab) Wait(ctx context.Context, timeout time.Duration) error {
	return l.call(ctx, methodWait, waitParams{Timeout: timeout}, nil)
}

// Status tells how the lab is.
func (l *Lab) Status(ctx context.Context) (Status, error) {
	var st Status
	if err := l.call(ctx, methodStatus, nil, &st); err != nil {
		return st, err
	}
	if raw, err := os.ReadFile(filepath.Join(dirOf(l.Name), pidFile)); err == nil {
		st.PID, _ = strconv.Atoi(string(raw))
	}
	return st, nil
}

// Dial connects to the node daemon of node n.
func (l *Lab) Dial(ctx context.Context, n id.Node) (*api.Client, error) {
	root, err := l.inside(ctx, n, true)
	if err != nil {
		return nil, err
	}
	return api.DialPath(ctx, root+socketPath)
}

func (l *Lab) do(ctx context.Context, op string, n id.Node) (id.Node, error) {
	var r opReply
	err := l.call(ctx, methodOp, opParams{Op: op, Node: n}, &r)
	return r.Node, err
}

// StartNode turns on a node that is off.
func (l *Lab) StartNode(ctx context.Context, n id.Node) error { return second(l.do(ctx, opStart, n)) }

// Crash is a power cut of node n: its cable goes silent first, then all of its
// processes end at once. Its disk stays.
func (l *Lab) Crash(ctx context.Context, n id.Node) error { return second(l.do(ctx, opCrash, n)) }

// Pause freezes every process of node n; its kernel still answers on the network.
func (l *Lab) Pause(ctx context.Context, n id.Node) error { return second(l.do(ctx, opPause, n)) }

// Resume lets a paused node go on.
func (l *Lab) Resume(ctx context.Context, n id.Node) error { return second(l.do(ctx, opResume, n)) }

// Add makes one more node, which joins the cluster, and returns its number.
func (l *Lab) Add(ctx context.Context) (id.Node, error) { return l.do(ctx, opAdd, 0) }

func second(_ id.Node, err error) error { return err }

// Cut drops all that a and b send to each other, or only what a sends to b.
func (l *Lab) Cut(ctx context.Context, a, b id.Node, oneWay bool) error {
	return l.call(ctx, methodFault, faultParams{Set: setCut, A: a, B: b, OneWay: oneWay}, nil)
}

// Delay holds back every frame between a and b, or, with b 0, all that a sends
// and receives; 0 ends it.
func (l *Lab) Delay(ctx context.Context, a, b id.Node, d time.Duration) error {
	return l.call(ctx, methodFault, faultParams{Set: setDelay, A: a, B: b, Delay: d}, nil)
}

// Loss loses this share (0 to 1) of the frames between a and b, or, with b 0, of
// all that a sends and receives; 0 ends it.
func (l *Lab) Loss(ctx context.Context, a, b id.Node, share float64) error {
	return l.call(ctx, methodFault, faultParams{Set: setLoss, A: a, B: b, Loss: share}, nil)
}

// Heal ends all faults; with a set those of node a, with both those between them.
func (l *Lab) Heal(ctx context.Context, a, b id.Node) error {
	return l.call(ctx, methodFault, faultParams{Set: healAll, A: a, B: b}, nil)
}

// Logs copies the console of a node's PID 1 to w, with follow until ctx ends.
func (l *Lab) Logs(ctx context.Context, n id.Node, follow bool, w io.Writer) error {
	c, err := l.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	err = c.Stream(ctx, methodLogs, logsParams{Node: n, Follow: follow}, func(raw json.RawMessage) error {
		var r logsReply
		if err := json.Unmarshal(raw, &r); err != nil {
			return err
		}
		_, err := w.Write(r.Data)
		return err
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Close ends the lab if this process owns it, and waits for its end; a lab that
// is detached goes on.
func (l *Lab) Close() error {
	if l.owner == nil {
		return nil
	}
	return l.Down(context.Background())
}

// Down ends the lab and returns when nothing is left of it.
func (l *Lab) Down(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	pidfd := -1
	if l.ended == nil {
		// The number is good as long as the lab answers.
		if st, err := l.Status(ctx); err == nil && st.PID > 0 {
			if fd, err := unix.PidfdOpen(st.PID, 0); err == nil {
				pidfd = fd
				defer unix.Close(fd)
			}
		}
	}
	err := l.call(ctx, methodOp, opParams{Op: opDown}, nil)
	if l.owner != nil {
		_ = l.owner.Close()
	}
	switch {
	case l.ended != nil:
		select {
		case <-l.ended:
			err = nil
			if end := l.lost(); end != nil {
				err = errno.New(errno.Other, "lab", 0, "the supervisor of %q did not end in order: %w", l.Name, end)
			}
		case <-ctx.Done():
		}
	case pidfd >= 0:
		if awaitExit(ctx, pidfd) {
			err = nil
		}
	}
	return errors.Join(err, l.sweepOwn(ctx))
}

// awaitExit waits for the end of a process.
func awaitExit(ctx context.Context, pidfd int) bool {
	for ctx.Err() == nil {
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, 50); n > 0 && err == nil {
			return true
		}
	}
	return false
}

// sweepOwn removes what a supervisor left that did not end in order.
func (l *Lab) sweepOwn(ctx context.Context) error {
	for {
		lock, err := lockDir(l.Name, false)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			_ = os.Remove(baseDir) // succeeds for the last lab
			return nil
		case err == nil:
			err = removeRests(l.Name)
			_ = lock.Close()
			_ = os.Remove(baseDir)
			return err
		case !errors.Is(err, errRunning):
			return err
		}
		select {
		case <-ctx.Done():
			return errno.New(errno.Timeout, "lab", 0, "the supervisor of %q does not end: end it with `kill -9` (its number is in %s)", l.Name, filepath.Join(dirOf(l.Name), pidFile))
		case <-time.After(lockRetry):
		}
	}
}
