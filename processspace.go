package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ssi/cluster"
	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/keeper"
	"ssi/vproc/gate"
	"ssi/vproc/procfs"
	"ssi/vproc/ptrace"
	"ssi/vproc/remote"
	"ssi/vproc/spawn"
)

// keptGate begins the names under which PID 1 keeps the listeners of the gate;
// their numbers follow.
const keptGate = "gate."

// processSpace makes the processes of all nodes one system for programs that know
// nothing of ssi: it answers the system calls that the gate catches, and for
// /proc.
type processSpace struct {
	keep    *keeper.Client
	log     *slog.Logger
	cluster *cluster.Cluster
	remote  *remote.Remote
	rexecve *ptrace.Server
	files   *procfs.Node
}

// openProcessSpace lets the other nodes and the role mount ask this one. Serve
// does the rest.
func openProcessSpace(keep *keeper.Client, log *slog.Logger, c *cluster.Cluster, a *api.Server, where *places) (*processSpace, error) {
	s := &processSpace{keep: keep, log: log, cluster: c}
	var err error
	s.remote, err = remote.New(remote.Config{
		Self: c.Self(), Peers: processCluster{c}, Log: log, Dir: filepath.Join(runDir, "remote"), Protected: where.protected, Lives: where.lives,
		Name: c.Identity().Name, Members: c.Members().Load,
	})
	if err != nil {
		return nil, err
	}
	if s.rexecve, err = newRexecve(c, log); err != nil {
		s.remote.Close()
		return nil, err
	}
	if s.files, err = procfs.NewNode("/proc", c.Self(), where.placed, where.hidden); err != nil {
		_ = s.rexecve.Close() // it has done nothing yet
		s.remote.Close()
		return nil, err
	}
	t := c.Transport()
	remote.Register(t, s.remote)
	procfs.Register(t, s.files)
	relay := procfs.NewRelay(&procCluster{processCluster: processCluster{c}, where: where}, log)
	where.relay.Store(relay)
	a.Handle(procfs.Method, func(ctx context.Context, call *api.Call) error {
		// Before it serves this node does not know who else there is, and the role mount
		// would believe that all others are gone.
		wait, cancel := context.WithTimeout(ctx, newsTime)
		defer cancel()
		if err := s.awaitServing(wait); err != nil {
			return errno.New(errno.Unavailable, call.Method, c.Self(), "the node does not serve yet: %w", err)
		}
		return relay.Handle(ctx, call)
	})
	return s, nil
}

// newsTime is how long the role mount is let wait for this node to serve; then it asks
// again.
const newsTime = time.Second

// awaitServing waits until this node serves.
func (s *processSpace) awaitServing(ctx context.Context) error {
	_, err := s.cluster.Serving().Wait(ctx, func(v cluster.Serving) bool { return v.OK })
	return err
}

// serve receives caught calls until ctx ends. It begins when this node serves:
// before that it does not know who the other nodes are, and callers wait.
func (s *processSpace) serve(ctx context.Context) error {
	if err := s.awaitServing(ctx); err != nil {
		return nil // the node ends
	}
	listeners, err := s.listeners(nil)
	if err != nil {
		return err
	}
	known := map[uint64]bool{}
	for n := range listeners {
		known[n] = true
	}
	calls := caughtCalls{s.remote, s.rexecve}
	g, err := gate.New(gate.Config{
		Log: s.log, Node: s.cluster.Self(), Journal: filepath.Join(runDir, "gate.journal"), Handler: calls, Quick: calls.Quick, Kept: listeners,
		Gone: func(n uint64) {
			if err := s.keep.Drop(listenerName(n)); err != nil {
				s.log.Warn("listener of the gate", "op", "keeper", "err", err)
			}
		},
	})
	if err != nil {
		for _, f := range listeners {
			_ = f.Close()
		}
		return err
	}
	defer func() {
		if err := g.Close(); err != nil {
			s.log.Warn("gate", "op", "close", "err", err)
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.keep.Done():
			return nil
		case <-s.keep.Kept():
		}
		fresh, err := s.listeners(known)
		if err != nil {
			return err
		}
		for n, f := range fresh {
			known[n] = true
			if err := g.Add(f, n); err != nil {
				return err
			}
		}
	}
}

func listenerName(n uint64) string { return keptGate + strconv.FormatUint(n, 10) }

// listeners takes those that PID 1 keeps and that are not known yet.
func (s *processSpace) listeners(known map[uint64]bool) (map[uint64]*os.File, error) {
	names, err := s.keep.Names(keptGate)
	if err != nil {
		return nil, fmt.Errorf("listeners of the gate: %w", err)
	}
	found := map[uint64]*os.File{}
	for _, name := range names {
		n, err := strconv.ParseUint(strings.TrimPrefix(name, keptGate), 10, 64)
		if err != nil || known[n] {
			continue
		}
		f, err := s.keep.Take(name)
		if err != nil {
			continue // dropped meanwhile
		}
		found[n] = f
	}
	return found, nil
}

// nodeDown tells that the processes of a node have ended.
func (s *processSpace) nodeDown(n id.Node) { s.remote.NodeDown(n) }

// close ends what open began, after serve has returned.
func (s *processSpace) close() {
	if err := s.rexecve.Close(); err != nil {
		s.log.Warn("rexecve", "op", "close", "err", err)
	}
	s.remote.Close()
	_ = s.files.Close() // only reads
}

// roles finds the processes of the roles. Once each of them is there exactly once,
// their PIDs are remembered, and looked for again in all of /proc when one of them is
// not what it was.
type roles struct {
	mu    sync.Mutex
	known []int
}

// pids is the processes that run this program as one of the roles.
func (r *roles) pids() []int {
	own, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := map[string]bool{}
	for _, pid := range r.known {
		seen[roleOf(pid, own)] = true
	}
	if !complete(r.known, seen) {
		r.known, seen = nil, map[string]bool{}
		list, err := os.ReadDir("/proc")
		if err != nil {
			return nil
		}
		for _, e := range list {
			pid, err := strconv.Atoi(e.Name())
			if err != nil {
				continue
			}
			if role := roleOf(pid, own); role != "" {
				r.known = append(r.known, pid)
				seen[role] = true
			}
		}
	}
	found := slices.Clone(r.known)
	if !complete(found, seen) { // one is being started, or has a copy that becomes another program
		r.known = nil
	}
	return found
}

// complete tells whether pids has each role once; seen are their roles.
func complete(pids []int, seen map[string]bool) bool {
	return len(pids) == 4 && seen["init"] && seen["mount"] && seen["spawn"] && seen["node"]
}

// roleOf is the role of a process that runs the program own, or "".
func roleOf(pid int, own string) string {
	dir := "/proc/" + strconv.Itoa(pid)
	exe, err := os.Readlink(dir + "/exe")
	if err != nil || exe != own {
		return ""
	}
	line, err := os.ReadFile(dir + "/cmdline")
	if err != nil {
		return ""
	}
	switch role, _, _ := strings.Cut(strings.TrimPrefix(string(line), "ssi\x00"), "\x00"); role {
	case "init", "mount", "spawn", "node":
		return role
	}
	return ""
}

// prepareUsers makes the thread of the role spawn what users' processes are to
// inherit: the view with the clusterwide /proc, and the filter of the gate. It
// waits until this machine is a node, for the filter depends on its number.
func prepareUsers(log *slog.Logger, stateDir string) func(*keeper.Client) (spawn.Views, error) {
	return func(keep *keeper.Client) (views spawn.Views, err error) {
		ident, ok := awaitIdentity(stateDir, keep.Done())
		if !ok {
			return views, keeper.ErrLost
		}
		if err := procfs.Setup(log, keep); err != nil {
			log.Error("programs see the processes of this node only", "op", "view", "err", err)
		} else if views.Users, views.Local, err = procfs.Views(); err != nil {
			return views, err
		}
		listener, err := gate.Install(ident.Node)
		if err != nil {
			log.Error("programs cannot act on processes of other nodes", "op", "gate", "err", err)
			return views, nil
		}
		return views, keepListener(keep, listener)
	}
}

// keepListener hands the listener of a filter to PID 1, under a number that no
// earlier one had: the time since the boot. It closes the caller's descriptor.
func keepListener(keep *keeper.Client, listener *os.File) error {
	defer func() { _ = listener.Close() }()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return fmt.Errorf("clock_gettime: %w", err)
	}
	return keep.Put(listenerName(uint64(now.Nano())), listener)
}

// awaitIdentity waits until this machine is a node of a cluster; ok is false if
// ended was closed before.
func awaitIdentity(stateDir string, ended <-chan struct{}) (ident cluster.Identity, ok bool) {
	tick := time.NewTicker(identityPoll)
	defer tick.Stop()
	for {
		if ident, err := cluster.ReadIdentity(stateDir); err == nil {
			return ident, true
		}
		select {
		case <-tick.C:
		case <-ended:
			return cluster.Identity{}, false
		}
	}
}
