package rexec

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"

	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/proc"
)

// Bulk is the name of the bulk streams that carry remote executions.
const Bulk = "rexec"

// MaxRunning is how many commands a node runs for others, and how many commands
// on others it relays, at a time.
const MaxRunning = 1024

// Opener opens bulk streams to other nodes.
type Opener interface {
	// OpenBulk opens a stream; ctx bounds the opening only. Read and Write of
	// the stream fail at once when the node leaves the membership.
	OpenBulk(ctx context.Context, node id.Node, kind string, header []byte) (net.Conn, error)
}

// Spawner creates processes (vproc/spawn.Client).
type Spawner interface {
	Spawn(ctx context.Context, s *proc.Spec, files []*os.File) (pid int32, pidfd *os.File, err error)
}

// Config is what a Server works with.
type Config struct {
	Node   id.Node
	Peers  Opener
	Spawn  Spawner
	Places Places // nil: every command gets a PID of this node
	RunDir string // default /run/ssi; attached commands are noted in RunDir/rexec
	Cgroup string // directory of the cgroup of all commands (keeper.CgroupEnv); empty: none
	// Fenced is why nothing is run at first, until Unfence; empty: it is. What is
	// asked for before waits for the first Unfence or Fence, at most openTime.
	Fenced string
	// Moved, if set, is called when LivesOn, Surrogates or Placed have something else to
	// tell. It must not call the server.
	Moved func(Where)
	// RestartSpawn is called when the spawn role hangs (keeper.Client.RestartSpawn); may be nil.
	RestartSpawn func() error
	Log          *slog.Logger
}

// Server runs commands for other nodes and relays those of this node's users.
type Server struct {
	c      Config
	log    *slog.Logger
	notes  string // directory
	hang   *hangups
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // handlers
	start  chan struct{}  // closed by the first Unfence or Fence

	mu       sync.Mutex
	fenced   string // why nothing is run; empty: it is
	closed   bool
	ends     map[ender]id.Node // running handlers, and the other node of each (0: none)
	commands int               // handlers of commands
	relays   int
	running  map[int32]*process // attached commands, by PID
	early    earlyExits
	away     map[int32]id.Node // this node's surrogates, and where what they stand for lives
}

// ender is a command or a relay: something that can be ended with a reason.
type ender interface {
	fail(f *Failure)
}

// NewServer makes a server and hangs up the commands that an earlier node role
// of this machine left behind.
func NewServer(c Config) (*Server, error) {
	if c.RunDir == "" {
		c.RunDir = "/run/ssi"
	}
	s := &Server{
		c: c, log: c.Log, notes: filepath.Join(c.RunDir, "rexec"),
		fenced: c.Fenced, ends: map[ender]id.Node{}, running: map[int32]*process{}, away: map[int32]id.Node{},
		start: make(chan struct{}),
	}
	if s.fenced == "" {
		close(s.start)
	}
	if err := os.MkdirAll(s.notes, 0o755); err != nil {
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.hang = newHangups(c.Log)
	s.hangUpOrphans()
	return s, nil
}

// enter notes a handler; the failure says why it may not start. It waits for a
// daemon that has just started: its users see one node, before and after.
func (s *Server) enter(ctx context.Context, e ender, peer id.Node, count *int) *Failure {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	select {
	case <-s.start:
	case <-s.ctx.Done():
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return lost(errno.Unavailable, s.c.Node, "the ssi daemon is shutting down")
	case s.fenced != "":
		return lost(errno.Fenced, s.c.Node, "lost contact with the cluster and runs nothing: %s", s.fenced)
	case *count >= MaxRunning:
		return lost(errno.Full, s.c.Node, "%d remote commands run already, which is the limit", MaxRunning)
	}
	*count++
	s.ends[e] = peer
	s.wg.Add(1)
	return nil
}

func (s *Server) leave(e ender, count *int) {
	s.mu.Lock()
	*count--
	delete(s.ends, e)
	s.mu.Unlock()
	s.wg.Done()
}

// failAll ends the handlers that match.
func (s *Server) failAll(f *Failure, match func(peer id.Node) bool) {
	s.mu.Lock()
	var list []ender
	for e, peer := range s.ends {
		if match(peer) {
			list = append(list, e)
		}
	}
	s.mu.Unlock()
	for _, e := range list {
		e.fail(f)
	}
}

// Fence ends every command that runs here and every relay; what is asked for
// later is refused, with cause, until Unfence. It returns once the kernel was told
// to kill the commands.
func (s *Server) Fence(cause string) {
	s.mu.Lock()
	s.fenced = cause
	s.started()
	busy := s.commands > 0
	var all []*process
	for _, p := range s.running {
		all = append(all, p)
	}
	s.mu.Unlock()
	killed := false
	if s.c.Cgroup != "" && (busy || s.populated()) {
		err := os.WriteFile(filepath.Join(s.c.Cgroup, "cgroup.kill"), []byte("1"), 0)
		if killed = err == nil; !killed {
			s.log.Error("fence", "op", "cgroup.kill", "err", err)
		}
	}
	if !killed {
		for _, p := range all {
			p.kill()
		}
	}
	s.failAll(lost(errno.Fenced, s.c.Node, "lost contact with the cluster: %s", cause), func(id.Node) bool { return true })
}

// populated reports whether the cgroup holds more than the spawn role, which is
// better not killed without need: a fence is also how a node starts.
func (s *Server) populated() bool {
	b, err := os.ReadFile(filepath.Join(s.c.Cgroup, "cgroup.procs"))
	return err != nil || bytes.Count(b, []byte("\n")) > 1
}

// Unfence lets commands run again.
func (s *Server) Unfence() {
	s.mu.Lock()
	s.fenced = ""
	s.started()
	s.mu.Unlock()
}

// started lets those go on who wait for the start; s.mu is held.
func (s *Server) started() {
	select {
	case <-s.start:
	default:
		close(s.start)
	}
}

// PeerDown ends the relays to a node that left the membership, and hangs up the
// commands that its users run here.
func (s *Server) PeerDown(node id.Node, cause string) {
	s.failAll(lost(errno.Unavailable, node, "left the cluster: %s", cause), func(peer id.Node) bool { return peer == node })
}

// Exited takes the end, stop or continuation of a process from PID 1
// (keeper.Open). It does not block.
func (s *Server) Exited(e proc.Exit) {
	s.mu.Lock()
	p := s.running[e.PID]
	if p == nil {
		s.early.add(e)
		s.mu.Unlock()
		return
	}
	ended := e.Status.Exited() || e.Status.Signaled()
	if ended {
		if p.alive() { // a late report of an earlier process with this PID
			s.mu.Unlock()
			return
		}
		delete(s.running, e.PID)
		if p.group != 0 {
			s.c.Places.Release(e.PID)
			s.moved()
		}
	}
	s.mu.Unlock()
	p.happened(e.Status)
	if ended {
		s.unnote(e.PID)
	}
}

// Close ends everything, hangs up the commands and waits.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.failAll(lost(errno.Unavailable, s.c.Node, "the ssi daemon is shutting down"), func(id.Node) bool { return true })
	s.wg.Wait()
	s.hang.close()
}
