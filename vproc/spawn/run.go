// Package spawn is the role spawn.
package spawn

import (
	"context"
	"log/slog"
	"os"

	"ssi/internal/proc"
)

// Run is the role spawn: it serves the socket that PID 1 passed to it until
// SIGTERM and returns the exit status for the process.
func Run(log *slog.Logger) int { return 1 }

// RunSession is the role session (hidden; started by spawn only): the leader of
// a terminal session. It returns the exit status for the process.
func RunSession(args []string) int { return 1 }

// Client asks the spawn role to create processes.
type Client struct{}

// NewClient makes a client for the socket at path.
func NewClient(path string) *Client { return nil }

// Spawn creates a process with files as its descriptors 0, 1 and 2. pidfd is the caller's to close.
func (c *Client) Spawn(ctx context.Context, s *proc.Spec, files [3]*os.File) (pid int32, pidfd *os.File, err error) {
	return 0, nil, nil
}

// Close ends the connection.
func (c *Client) Close() error { return nil }
