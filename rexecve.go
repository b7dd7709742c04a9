package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"ssi/applet"
	"ssi/cluster"
	"ssi/vproc/call"
	"ssi/vproc/ptrace"
	"ssi/vproc/remote"
)

// statusNoOrder is the status of a surrogate that does not know what for: that of a
// program that was found and could not be run.
const statusNoOrder = 126

// newRexecve makes what answers rexecve, and lets other nodes ask it.
func newRexecve(c *cluster.Cluster, log *slog.Logger) (*ptrace.Server, error) {
	s, err := ptrace.New(ptrace.Config{Self: c.Self(), Members: c.Members().Load, Peers: processCluster{c}, Log: log})
	if err != nil {
		return nil, err
	}
	ptrace.Register(c.Transport(), s)
	return s, nil
}

// caughtCalls decides about the calls that the gate catches: a gate.Handler.
type caughtCalls struct {
	remote  *remote.Remote
	rexecve *ptrace.Server
}

// Handle decides about a call.
func (c caughtCalls) Handle(ctx context.Context, r *call.Request) call.Outcome {
	if r.Nr == call.Rexecve {
		return c.rexecve.Handle(ctx, r)
	}
	return c.remote.Handle(ctx, r)
}

// Quick decides about those that need nothing for it; see gate.Config.
func (c caughtCalls) Quick(r *call.Request) (o call.Outcome, ok bool) {
	if r.Nr == call.Rexecve {
		return o, false
	}
	return c.remote.Quick(r)
}

// runSurrogate is the role of a process that called rexecve for another node: it has
// the program run there and stands for it.
func runSurrogate(args []string) int {
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "ssi: only rexecve starts this role")
		return statusNoOrder
	}
	order, err := ptrace.TakeOrder(args[0])
	if err != nil {
		fmt.Fprintf(os.Stderr, "rexecve: %v\n", err)
		return statusNoOrder
	}
	path := string(order.Path)
	_ = os.WriteFile("/proc/self/comm", []byte(filepath.Base(path)), 0) // as execve(2) does; only lists show it
	if path == filepath.Base(path) {
		path = "./" + path // it is not to be looked up
	}
	status, err := execOn(context.Background(), applet.ExecRequest{
		Name: "rexecve", Node: order.Node, Path: path, Argv: append([]string{string(order.Arg0)}, args[1:]...), Attach: true,
	})
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
	}
	return status
}
