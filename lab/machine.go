package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// layTimeout is how long a node may take from clone to exec of its PID 1.
const layTimeout = 30 * time.Second

// machine is one node as a machine: what it is when it is off, and its life when
// it is on.
type machine struct {
	n       id.Node
	s       *supervisor
	console *console

	op    sync.Mutex // serialises the operations; above supervisor.mu
	laid  bool       // the disk is there; guarded by op
	first bool       // PID 1 never ran: the disk is to be set up; guarded by op

	// Guarded by supervisor.mu.
	state State
	since time.Time
	boots int
	cause string
	life  *life
}

// life is one life of a node, from clone to the end of its PID 1.
type life struct {
	pid   int // of PID 1, in the supervisor's numbers
	pidfd *os.File
	done  chan struct{} // closed when all is over and the node is off
}

func (m *machine) cgroup() string { return m.s.cgroup() + "/" + Host(m.n) }

// set changes what status shows.
func (m *machine) set(state State, cause string, l *life) {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	m.state, m.cause, m.since, m.life = state, cause, time.Now(), l
	if state == On {
		m.boots++
	}
}

func (m *machine) get() (State, *life) {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	return m.state, m.life
}

// start turns the node on. The first time, prepared is called when the node's
// disk is set up and gives what it needs to join, nil for the first node.
func (m *machine) start(ctx context.Context, prepared func() (*join, error)) error {
	m.op.Lock()
	defer m.op.Unlock()
	if state, _ := m.get(); state != Off {
		return errno.New(errno.Exists, "start", m.n, "it is %s already", state)
	}
	if err := context.Cause(m.s.ctx); err != nil {
		return err
	}
	m.set(Starting, "", nil)
	l, err := m.boot(ctx, prepared)
	if err != nil {
		m.set(Off, err.Error(), nil)
		return errno.New(errno.KindOf(err), "start", m.n, "%w", err)
	}
	m.set(On, "", l)
	return nil
}

func (m *machine) boot(ctx context.Context, prepared func() (*join, error)) (_ *life, err error) {
	ctx, cancel := context.WithTimeout(ctx, layTimeout)
	defer cancel()
	defer context.AfterFunc(m.s.ctx, cancel)()
	if !m.laid {
		if err := m.layDisk(); err != nil {
			return nil, err
		}
		if err := writeNew(m.pathIn("/etc/hosts"), hostsFile(m.s.all()), 0o644); err != nil {
			return nil, err
		}
		m.laid = true
	}
	p, err := m.clone()
	if err != nil {
		return nil, err
	}
	defer p.close()
	defer func() {
		if err != nil {
			_ = m.s.cg.kill(m.cgroup())
			<-p.life.done
			if m.s.ctx.Err() != nil { // the lab ends: no fault of the node
				err = context.Cause(m.s.ctx)
			}
		}
	}()
	stop := context.AfterFunc(ctx, func() { _ = p.status.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := m.s.net.plug(m.n, p.life.pid); err != nil {
		return nil, err
	}
	if err := p.tell("net"); err != nil {
		return nil, err
	}
	if err := p.expect("ready"); err != nil {
		return nil, err
	}
	if m.first && prepared != nil {
		j, err := prepared()
		if err != nil {
			return nil, err
		}
		if err := m.writeJoin(j); err != nil {
			return nil, err
		}
	}
	if err := p.tell("go"); err != nil {
		return nil, err
	}
	if err := p.expect(""); err != nil { // the pipe closes with exec
		return nil, err
	}
	m.first = false
	return p.life, nil
}

// clone makes the namespaces of a node with its first process in it and starts
// to watch it.
func (m *machine) clone() (*nascent, error) {
	cgroup, err := m.s.cg.create(m.cgroup())
	if err != nil {
		return nil, err
	}
	defer cgroup.Close()
	ctlR, ctlW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	defer ctlR.Close()
	statusR, statusW, err := os.Pipe()
	if err != nil {
		_ = ctlW.Close()
		return nil, fmt.Errorf("lab: %w", err)
	}
	defer statusW.Close()
	outR, outW, err := os.Pipe()
	if err != nil {
		_, _ = ctlW.Close(), statusR.Close()
		return nil, fmt.Errorf("lab: %w", err)
	}
	defer outW.Close()
	pidfd := -1
	cmd := &exec.Cmd{
		Path: exePath, Args: []string{"ssi", roleNode, m.n.String()}, Dir: "/",
		Env:        []string{"PATH=" + nodePath, "HOME=/root", "TERM=linux", "container=ssi-lab", "SSI_LAB=" + m.s.opts.Name},
		Stdout:     outW,
		Stderr:     outW,
		ExtraFiles: []*os.File{ctlR, statusW},
		SysProcAttr: &unix.SysProcAttr{
			Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
			Setsid:     true, UseCgroupFD: true, CgroupFD: int(cgroup.Fd()), PidFD: &pidfd,
		},
	}
	if err := cmd.Start(); err != nil {
		_, _, _ = ctlW.Close(), statusR.Close(), outR.Close()
		return nil, fmt.Errorf("lab: make the namespaces of a node: %w", err)
	}
	p := &nascent{ctl: ctlW, status: statusR, life: &life{pid: cmd.Process.Pid, pidfd: os.NewFile(uintptr(pidfd), "pidfd"), done: make(chan struct{})}}
	m.s.wg.Go(func() { m.watch(cmd, p.life, outR) })
	return p, json.NewEncoder(ctlW).Encode(m.nodeConfig())
}

// watch waits for the end of a life and makes the node be off; a node that asked
// for a reboot is started again.
func (m *machine) watch(cmd *exec.Cmd, l *life, out *os.File) {
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(m.console, out)
		_ = out.Close()
	}()
	err := cmd.Wait()
	m.s.net.unplug(m.n)
	// Commands that were started in the node from outside end with it.
	if rerr := m.s.cg.remove(m.cgroup()); rerr != nil {
		m.s.log.Error("cgroup of a node stays", "node", m.n, "err", rerr)
	}
	<-copied
	_ = l.pidfd.Close()
	cause, reboot := endCause(cmd.ProcessState, err)
	m.s.mu.Lock()
	if m.life == l {
		if m.cause == "" {
			m.cause = cause
		} else {
			reboot = false // it was crashed by request
		}
		m.state, m.since, m.life = Off, time.Now(), nil
	} else {
		reboot = false // it never came up
	}
	m.s.mu.Unlock()
	close(l.done)
	if reboot && m.s.ctx.Err() == nil {
		if err := m.start(m.s.ctx, nil); err != nil {
			m.s.log.Error("reboot", "node", m.n, "err", err)
		}
	}
}

// endCause says why a PID 1 ended: reboot(2) in a PID namespace shows as a signal.
func endCause(state *os.ProcessState, err error) (cause string, reboot bool) {
	if state == nil {
		return fmt.Sprint("lost: ", err), false
	}
	ws, ok := state.Sys().(syscall.WaitStatus)
	switch {
	case ok && ws.Signaled() && ws.Signal() == unix.SIGHUP:
		return "reboot", true
	case ok && ws.Signaled() && ws.Signal() == unix.SIGINT:
		return "powered off", false
	case ok && ws.Signaled():
		return "PID 1 was killed by " + unix.SignalName(ws.Signal()), false
	case state.ExitCode() == 0:
		return "PID 1 ended", false
	}
	return fmt.Sprintf("PID 1 ended with status %d", state.ExitCode()), false
}

// crash is a power cut.
func (m *machine) crash() error {
	m.op.Lock()
	defer m.op.Unlock()
	state, l := m.get()
	if l == nil {
		return errno.New(errno.Unavailable, "crash", m.n, "it is %s already", state)
	}
	m.s.mu.Lock()
	m.cause = "crashed"
	m.s.mu.Unlock()
	// The wire first: not even a reset may reach the others.
	m.s.net.silence(m.n)
	if err := m.s.cg.kill(m.cgroup()); err != nil {
		return err
	}
	<-l.done
	return nil
}

// pause freezes the node, or lets it go on.
func (m *machine) pause(on bool) error {
	m.op.Lock()
	defer m.op.Unlock()
	op, from, to := "pause", On, Paused
	if !on {
		op, from, to = "resume", Paused, On
	}
	state, l := m.get()
	if state != from {
		return errno.New(errno.Invalid, op, m.n, "it is %s", state)
	}
	if err := m.s.cg.freeze(m.cgroup(), on); err != nil {
		return err
	}
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	if m.life == l {
		m.state, m.since = to, time.Now()
	}
	return nil
}
