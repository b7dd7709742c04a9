package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/pty"
	"ssi/internal/sys"
)

// deathWait is how long a command that was killed waits for the news that its
// whole node went off.
const deathWait = 100 * time.Millisecond

// handleExec serves methodExec.
func (s *supervisor) handleExec(_ context.Context, c *api.Call) error {
	var p execParams
	if err := c.Params(&p); err != nil {
		return err
	}
	if len(p.Args) == 0 {
		return errno.New(errno.Invalid, "exec", p.Node, "no command")
	}
	m, err := s.machine("exec", p.Node)
	if err != nil {
		return err
	}
	state, l := m.get()
	if state != On || l == nil {
		return errno.New(errno.Unavailable, "exec", p.Node, "it is %s", state)
	}
	up, err := c.Upgrade(struct{}{})
	if err != nil {
		return err
	}
	conn, ok := up.(fdConn)
	if !ok {
		return errno.New(errno.Other, "exec", p.Node, "this connection passes no descriptors")
	}
	end := m.session(conn, l, &p)
	_ = conn.SetWriteDeadline(time.Now().Add(api.WriteTimeout))
	return json.NewEncoder(conn).Encode(end)
}

// session runs the command and returns how it ended.
func (m *machine) session(conn fdConn, l *life, p *execParams) sessionEnd {
	want := 3
	if p.TTY {
		want = 0
	}
	stdio, err := receiveFiles(conn, want)
	if err != nil {
		return sessionEnd{Code: 255, Error: err.Error()}
	}
	cmd, master, err := m.launch(l, p, stdio)
	closeAll(stdio)
	if err != nil {
		_ = sendFiles(conn)
		return startFailure(p, err)
	}
	if master != nil {
		err = sendFiles(conn, master)
		_ = master.Close()
	} else {
		err = sendFiles(conn)
	}
	if err != nil {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	}
	ended, heard := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(heard)
		hearClient(conn, cmd.Process.Pid, ended)
	}()
	werr := cmd.Wait()
	close(ended)
	_ = conn.SetReadDeadline(time.Unix(1, 0))
	<-heard
	ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case !ok:
		return sessionEnd{Code: 255, Error: werr.Error()}
	case !ws.Signaled():
		return sessionEnd{Code: ws.ExitStatus()}
	case ws.Signal() == unix.SIGKILL:
		select {
		case <-l.done:
			return sessionEnd{Code: 255, Error: fmt.Sprintf("node %d went off: %s", m.n, m.s.causeOf(m))}
		case <-time.After(deathWait):
		}
	}
	return sessionEnd{Code: 128 + int(ws.Signal()), Signal: int(ws.Signal())}
}

// hearClient passes signals to the command's process group until the command
// ended, and ends the command when the client goes away.
func hearClient(conn fdConn, pid int, ended <-chan struct{}) {
	dec := json.NewDecoder(conn)
	for {
		var msg sessionSignal
		if dec.Decode(&msg) != nil {
			break
		}
		if msg.Signal > 0 && msg.Signal <= 64 {
			_ = unix.Kill(-pid, unix.Signal(msg.Signal))
		}
	}
	select {
	case <-ended:
		return
	default:
	}
	_, _ = unix.Kill(-pid, unix.SIGHUP), unix.Kill(-pid, unix.SIGCONT)
	select {
	case <-ended:
	case <-time.After(hangupGrace):
		_ = unix.Kill(-pid, unix.SIGKILL)
	}
}

func startFailure(p *execParams, err error) sessionEnd {
	code := 126
	if errors.Is(err, fs.ErrNotExist) {
		code = 127
	}
	return sessionEnd{Code: code, Error: fmt.Sprintf("node %d: %s: %v", p.Node, p.Args[0], err)}
}

// launch starts the command in the node's namespaces and cgroup, with a terminal
// of the node or with the client's stdio.
func (m *machine) launch(l *life, p *execParams, stdio []*os.File) (cmd *exec.Cmd, master *os.File, err error) {
	cgroup, err := m.s.cg.open(m.cgroup())
	if err != nil {
		return nil, nil, err
	}
	defer cgroup.Close()
	err = sys.OnThread(func() error {
		if err := enter(l.pidfd); err != nil {
			return err
		}
		if p.TTY {
			var slave *os.File
			var err error
			if master, slave, err = openTerminal(p.Rows, p.Cols); err != nil {
				return err
			}
			defer slave.Close()
			stdio = []*os.File{slave, slave, slave}
		}
		dir := p.Dir
		if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
			dir = "/"
		}
		path, err := lookPath(p.Args[0], p.Env, dir)
		if err != nil {
			return err
		}
		cmd = &exec.Cmd{
			Path: path, Args: p.Args, Env: p.Env, Dir: dir,
			Stdin: stdio[0], Stdout: stdio[1], Stderr: stdio[2],
			SysProcAttr: &syscall.SysProcAttr{Setsid: true, Setctty: p.TTY, UseCgroupFD: true, CgroupFD: int(cgroup.Fd())},
		}
		return cmd.Start()
	})
	if err != nil {
		if master != nil {
			_ = master.Close()
		}
		var perr *fs.PathError
		if errors.As(err, &perr) {
			err = perr.Err
		}
		return nil, nil, err
	}
	return cmd, master, nil
}

// enter puts this thread into the namespaces of a node. The thread must end with
// its goroutine.
func enter(pidfd *os.File) error {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return fmt.Errorf("enter the node: %w", err)
	}
	// A thread that shares its root directory may not change the mount namespace.
	err = unix.Unshare(unix.CLONE_FS)
	if err == nil {
		cerr := raw.Control(func(fd uintptr) {
			err = unix.Setns(int(fd), unix.CLONE_NEWNS|unix.CLONE_NEWPID|unix.CLONE_NEWNET|unix.CLONE_NEWIPC|unix.CLONE_NEWUTS|unix.CLONE_NEWCGROUP)
		})
		err = errors.Join(err, cerr)
	}
	if err != nil {
		return fmt.Errorf("enter the node: %w", err)
	}
	return nil
}

// openTerminal makes a pseudo-terminal of the mount namespace this thread is in.
func openTerminal(rows, cols uint16) (master, slave *os.File, err error) {
	master, slave, err = pty.Open()
	if err == nil && rows > 0 && cols > 0 {
		if err = pty.SetSize(slave, rows, cols); err != nil {
			_, _ = master.Close(), slave.Close()
		}
	}
	return master, slave, err
}

// lookPath finds a command as execvp(3) does, by the PATH of env.
func lookPath(name string, env []string, dir string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, executable(name)
	}
	search := nodePath
	for _, v := range env {
		if p, ok := strings.CutPrefix(v, "PATH="); ok {
			search = p
		}
	}
	for _, d := range filepath.SplitList(search) {
		if filepath.IsAbs(d) {
			if path := filepath.Join(d, name); executable(path) == nil {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("command not found%w", quiet{fs.ErrNotExist})
}

// quiet is an error that is there to be recognised, not to be read.
type quiet struct{ error }

func (quiet) Error() string   { return "" }
func (q quiet) Unwrap() error { return q.error }

func executable(path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	if fi.IsDir() || fi.Mode()&0o111 == 0 {
		return &fs.PathError{Op: "exec", Path: path, Err: unix.EACCES}
	}
	return nil
}
