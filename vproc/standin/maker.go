package standin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
	"ssi/internal/proc"
	"ssi/internal/sys"
)

const (
	// orderTime is how long a stand-in may take for a set of orders, which takes it
	// microseconds: one that does not is stopped or dead.
	orderTime = 5 * time.Second
	// endTime is how many milliseconds one may take to end by itself.
	endTime = 200
	// maxStandIns bounds the stand-ins of a node.
	maxStandIns = 4096
)

// Unplaceable is the error of Create when a process cannot have its place. Nothing
// was made then, and it may be created with another PID.
type Unplaceable struct{ Cause error }

func (u *Unplaceable) Error() string { return "no place for the process: " + u.Cause.Error() }

func (u *Unplaceable) Unwrap() error { return u.Cause }

// unplaceable makes an Unplaceable.
func unplaceable(format string, args ...any) error {
	return &Unplaceable{fmt.Errorf(format, args...)}
}

// Spawner creates ordinary processes (vproc/spawn.Client).
type Spawner interface {
	Spawn(ctx context.Context, s *proc.Spec, files []*os.File) (pid int32, pidfd *os.File, err error)
}

// Config is what a Maker works with.
type Config struct {
	Spawn Spawner
	// Exited is told each end, stop and continuation of a process that Create made,
	// unless its parent is PID 1. It must not block.
	Exited func(proc.Exit)
	// LocalView is the name of the environment variable with which a process gets a
	// view that stand-ins do not have; see vproc/spawn.
	LocalView string
	Log       *slog.Logger
}

// standin is one stand-in.
type standin struct {
	pid, parent, group, session int32 // parent 1: PID 1
	pidfd                       int
	tty                         int // which terminal of its session it has; 0: none
}

// Maker makes processes that have a place, and the stand-ins that they need.
type Maker struct {
	c       Config
	arena   sys.Arena
	memory  *os.File // the arena
	reports *os.File // what stand-ins write, and this reads
	toUs    *os.File // the other end
	held    held
	wake    chan struct{} // of capacity 1: something ended
	stop    chan struct{}
	wg      sync.WaitGroup

	mu     sync.Mutex
	closed bool
	root   int32 // 0: there is none
	all    map[int32]*standin
	placed map[int32]int32     // processes that were made, and their parents
	dying  map[int32]time.Time // stand-ins that were killed, and when

	terminals int // how many sessions got one
}

// New ends the stand-ins of an earlier daemon and makes a Maker. The caller must
// close it.
func New(c Config) (*Maker, error) {
	endEarlier(c.Log)
	m := &Maker{
		c: c, wake: make(chan struct{}, 1), stop: make(chan struct{}), held: held{pids: map[int32]bool{}},
		all: map[int32]*standin{}, placed: map[int32]int32{}, dying: map[int32]time.Time{},
	}
	fd, err := unix.MemfdCreate("ssi-arena", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memory of the stand-ins: %w", err)
	}
	m.memory = os.NewFile(uintptr(fd), "arena")
	if err := m.memory.Truncate(sys.ArenaSize); err != nil {
		_ = m.memory.Close()
		return nil, fmt.Errorf("memory of the stand-ins: %w", err)
	}
	if m.arena, err = unix.Mmap(fd, 0, sys.ArenaSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		_ = m.memory.Close()
		return nil, fmt.Errorf("memory of the stand-ins: %w", err)
	}
	if m.reports, m.toUs, err = os.Pipe(); err != nil {
		_ = m.memory.Close()
		_ = unix.Munmap(m.arena)
		return nil, fmt.Errorf("reports of the stand-ins: %w", err)
	}
	m.wg.Go(m.read)
	m.wg.Go(m.tidy)
	return m, nil
}

// Close ends all stand-ins and waits. Processes that Create made go on as children
// of PID 1.
func (m *Maker) Close() {
	m.mu.Lock()
	m.closed = true
	for _, s := range m.all {
		m.end(s)
	}
	m.mu.Unlock()
	close(m.stop)
	_ = m.reports.Close()
	m.wg.Wait()
	_ = m.toUs.Close()
	_ = m.memory.Close()
	_ = unix.Munmap(m.arena)
}

// Create creates the process of s in s.Place. files are its descriptors 0, 1 and 2;
// with s.Session the first is a terminal, which becomes that of its session. pidfd is
// the caller's to close. *Unplaceable tells that nothing was made, *proc.Failure
// why the command could not be executed.
func (m *Maker) Create(ctx context.Context, s *proc.Spec, files []*os.File) (pid int32, pidfd *os.File, err error) {
	if err := m.refuses(s, files); err != nil {
		return 0, nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return 0, nil, unplaceable("the daemon is stopping")
	}
	tty := m.terminals
	p, err := m.settle(ctx, s, files[0])
	if err == nil {
		pidfd, err = m.become(ctx, p, s, files)
	}
	if err != nil {
		var f *proc.Failure
		var u *Unplaceable
		if !errors.As(err, &f) && !errors.As(err, &u) {
			err = &Unplaceable{err}
		}
		if p != nil {
			m.end(p)
		}
		if leader := m.all[s.Place.Session]; leader != nil && m.terminals > tty {
			m.takeTerminal(leader)
		}
		m.look()
		return 0, nil, err
	}
	m.drop(p)
	m.placed[p.pid] = s.Place.Parent
	m.held.mu.Lock() // what has ended is an earlier one
	m.held.released = slices.DeleteFunc(m.held.released, func(pid int32) bool { return pid == p.pid })
	m.held.mu.Unlock()
	return p.pid, pidfd, nil
}

// refuses tells why s is not tried.
func (m *Maker) refuses(s *proc.Spec, files []*os.File) error {
	switch {
	case s.Place.PID == 0:
		return unplaceable("none is asked for")
	case len(files) != 3:
		return unplaceable("%d files, needs 3", len(files))
	case len(sys.Hollow()) == 0:
		return unplaceable("this processor has no stand-ins")
	case slices.ContainsFunc(append(s.Place.Kin(), s.Place.PID), ofNoNode):
		return unplaceable("a number of it is of no node: %+v", s.Place)
	case m.c.LocalView != "" && valueOf(s.Env, m.c.LocalView) != "":
		return unplaceable("it is to see its own node only")
	}
	return nil
}

// ofNoNode reports whether a PID is in the window of kernel threads and what boots,
// whose numbers each node has.
func ofNoNode(pid int32) bool { return id.PID(pid).Home() == 0 }

// Foreground makes group the foreground of the terminal of a session, in the name of
// the stand-in that leads it.
func (m *Maker) Foreground(session, group int32) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.all[session]
	if s == nil {
		return fmt.Errorf("session %d has no stand-in: %w", session, unix.ESRCH)
	}
	return m.foreground(s, group)
}

// Gone is told that the process at home has ended for which a stand-in may be here.
func (m *Maker) Gone(pid int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.all[pid]; s != nil && pid != m.root {
		m.end(s)
	}
}

// Release is told that a process that Create made has ended. It does not block.
func (m *Maker) Release(pid int32) {
	m.held.mu.Lock()
	m.held.released = append(m.held.released, pid)
	m.held.mu.Unlock()
	m.look()
}

// held is what is asked and told at any time.
type held struct {
	mu       sync.RWMutex
	pids     map[int32]bool // the PIDs of the stand-ins
	released []int32        // processes that have ended, since the last look
}

// StandIn reports whether a stand-in has this PID.
func (m *Maker) StandIn(pid int32) bool {
	m.held.mu.RLock()
	defer m.held.mu.RUnlock()
	return m.held.pids[pid]
}

// StandIns is the PIDs of all stand-ins.
func (m *Maker) StandIns() []int {
	m.held.mu.RLock()
	defer m.held.mu.RUnlock()
	list := make([]int, 0, len(m.held.pids))
	for pid := range m.held.pids {
		list = append(list, int(pid))
	}
	return list
}

// living is the stand-in pid, unless it has ended, as all do when the node is fenced.
func (m *Maker) living(pid int32) *standin {
	s := m.all[pid]
	if s == nil || alive(s.pidfd) {
		return s
	}
	m.end(s)
	return nil
}

// take notes a new stand-in.
func (m *Maker) take(s *standin) {
	m.all[s.pid] = s
	m.held.mu.Lock()
	m.held.pids[s.pid] = true
	m.held.mu.Unlock()
}

// drop forgets a stand-in: it has become a process, or ended.
func (m *Maker) drop(s *standin) {
	if m.all[s.pid] != s {
		return
	}
	delete(m.all, s.pid)
	if m.root == s.pid {
		m.root = 0
	}
	_ = unix.Close(s.pidfd)
	m.held.mu.Lock()
	delete(m.held.pids, s.pid)
	m.held.mu.Unlock()
}

// end ends a stand-in. One with children ends by itself, so that it first tells of
// those that it has reaped.
func (m *Maker) end(s *standin) {
	if m.all[s.pid] == s && m.hasChildren(s.pid) {
		sh := m.sheet()
		sh.order(0, unix.SYS_EXIT_GROUP, 0)
		if _, err := m.give(s, sh); err == nil {
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(s.pidfd), Events: unix.POLLIN}}, endTime)
		}
	}
	if m.all[s.pid] == s {
		_ = unix.PidfdSendSignal(s.pidfd, unix.SIGKILL, nil, 0)
		if len(m.dying) >= maxStandIns {
			clear(m.dying)
		}
		m.dying[s.pid] = time.Now()
		m.drop(s)
	}
}
