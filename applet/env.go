package applet

import (
	"context"
	"io"
	"os"
	"time"

	"ssi/internal/api"
	"ssi/internal/feature"
	"ssi/internal/id"
	"ssi/internal/keeper"
)

// LocalViewEnv in the environment of a process makes the commands of ssi show
// it only its own node; see localview.
const LocalViewEnv = "SSI_LOCALVIEW"

// Env is what a command knows of the world. Main passes it to the chosen
// constructor; nothing in it changes afterwards.
type Env struct {
	Args   []string // of the process; Args[0] is the name it was started under
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Getenv func(string) string

	Version string           // of this binary
	Now     func() time.Time // for ages in tables

	// Dial connects to the node daemon of this machine.
	Dial func(context.Context) (*api.Client, error)
	// Exec runs a program on a node.
	Exec func(context.Context, ExecRequest) (status int, err error)
	// Replace becomes another program, as execve(2); it returns only errors.
	Replace func(path string, argv, env []string) error
	// End ends this machine, in order or, with force, at once.
	End func(e keeper.Ending, force bool) error
	// LocalProc makes /proc show this node only, for what Replace becomes; the error
	// is EPERM for others than root.
	LocalProc func() error
	// Bootstrap makes this machine a node while no daemon serves it.
	Bootstrap Bootstrap
	// Probes is what doctor examines.
	Probes func(context.Context, feature.Options) []feature.Result

	table []Entry // all commands, for help, completion and --install
}

// System is the Env of a real process. What only the daemon side can provide
// (Exec, Bootstrap, End, LocalProc) is left for the caller to set.
func System(args []string, version string) *Env {
	return &Env{
		Args:   args,
		Stdin:  os.Stdin,
		Stdout: os.Stdout,
		Stderr: os.Stderr,
		Getenv: os.Getenv,

		Version:   version,
		Now:       time.Now,
		Dial:      api.Dial,
		Replace:   replace,
		LocalProc: func() error { return nil },
		Probes:    feature.Probe,
	}
}

// LocalView reports whether the caller asked to see this node only.
func (e *Env) LocalView() bool { return e.Getenv(LocalViewEnv) != "" }

// ExecRequest is one program to run on one node.
type ExecRequest struct {
	Name string   // the command that asks, for messages: "onnode"
	Node id.Node  // where; it may be this node
	Argv []string // the program and its arguments; found in the PATH of the target
	Path string   // the file to execute, with a slash; empty: as Argv[0] is found
	Env  []string // NAME=VALUE to add to the environment of the caller
	Pin  bool     // it must stay on that node

	// With Attach the program gets the standard streams, the terminal and the
	// signals of this process, and the death of the program by a signal becomes
	// the death of this process. Without it the program reads nothing and
	// writes to Stdout and Stderr, a signal n counts as status 128+n, and
	// several requests may run at once.
	Attach bool
	Stdout io.Writer
	Stderr io.Writer
}

// Bootstrap makes this machine a member of a cluster by writing its files. It
// is used while the daemon has no cluster; a running daemon notices the files.
type Bootstrap interface {
	// Init founds a cluster whose first node is this machine. It refuses a
	// machine that is a node already, unless Force.
	Init(context.Context, InitOptions) (InitResult, error)
	// Join presents a one-time token to a node of the cluster and stores the
	// certificate that it gets.
	Join(context.Context, JoinOptions) (JoinResult, error)
	// Rejoin puts the local copy of the cluster's state aside, so that the node
	// starts empty under its number; it names the directory it was moved to.
	// It refuses while a daemon uses the state.
	Rejoin(context.Context) (aside string, err error)
}

// InitOptions describes a new cluster.
type InitOptions struct {
	Name    string  // of the cluster
	Node    id.Node // number of this machine
	Addr    string  // host:port where other nodes reach this one; "" finds one
	Profile string  // timing: fast, lan, wan; "" leaves it to the configuration
	Tokens  int     // how many one-time tokens to issue
	Force   bool    // forget the cluster this machine belonged to
}

// InitResult is a new cluster.
type InitResult struct {
	ID     string   `json:"id"`
	Name   string   `json:"name"`
	Node   id.Node  `json:"node"`
	Addr   string   `json:"addr"`
	Tokens []string `json:"-"` // secrets
}

// JoinOptions says how to join.
type JoinOptions struct {
	Token   string   // one-time token; a secret
	Addrs   []string // host:port of nodes of the cluster; empty: those the token names
	Name    string   // of this machine; "" takes the host name
	Addr    string   // host:port where other nodes reach this one; "" finds one
	Witness bool     // vote only
}

// JoinResult is the membership that was got.
type JoinResult struct {
	ID   string  `json:"id"`
	Name string  `json:"name"` // of the cluster
	Node id.Node `json:"node"`
}
