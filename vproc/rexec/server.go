package rexec

import (
	"context"
	"log/slog"
	"net"
	"os"

	"ssi/internal/api"
	"ssi/internal/id"
	"ssi/internal/proc"
)

// Bulk is the name of the bulk streams that carry remote executions.
const Bulk = "rexec"

// Opener opens a bulk stream to another node; Read and Write of the stream
// fail at once when the node leaves the membership.
type Opener interface {
	OpenBulk(ctx context.Context, node id.Node, kind string, header []byte) (net.Conn, error)
}

// Spawner creates processes (vproc/spawn.Client).
type Spawner interface {
	Spawn(ctx context.Context, s *proc.Spec, files [3]*os.File) (pid int32, pidfd *os.File, err error)
}

// Config is what a Server works with.
type Config struct {
	Node   id.Node
	Peers  Opener
	Spawn  Spawner
	RunDir string // default /run/ssi; attached commands are noted in RunDir/rexec
	Cgroup string // directory of the cgroup of all commands; empty: none
	Log    *slog.Logger
}

// Server runs commands for other nodes and relays those of this node's users.
type Server struct{}

// NewServer makes a server and hangs up the commands that an earlier node
// role of this machine left behind.
func NewServer(c Config) (*Server, error) { return nil, nil }

// HandleAPI serves the method api.ExecRun.
func (s *Server) HandleAPI(ctx context.Context, c *api.Call) error { return nil }

// HandleBulk serves a stream that another node opened; it returns when the
// command ended and closes conn.
func (s *Server) HandleBulk(ctx context.Context, from id.Node, header []byte, conn net.Conn) {}

// Exited takes the end of a process from PID 1 (keeper.Open).
func (s *Server) Exited(e proc.Exit) {}

// Fence ends every command that runs here and every relay; what starts later
// is refused, with cause, until Unfence.
func (s *Server) Fence(cause string) {}

// Unfence lets commands run again.
func (s *Server) Unfence() {}

// PeerDown ends the relays to a node that left the membership, and the
// commands that its users run here.
func (s *Server) PeerDown(node id.Node, cause string) {}

// Close ends everything and waits.
func (s *Server) Close() {}
