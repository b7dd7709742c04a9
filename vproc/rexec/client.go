package rexec

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/proc"
	"ssi/internal/pty"
)

// TTY says whether the command gets a terminal.
type TTY uint8

// The choices.
const (
	TTYAuto  TTY = iota // if stdin and stdout are terminals
	TTYNever            // never
)

// Options say what to run where.
type Options struct {
	Socket string   // of the node daemon that is asked; empty: this machine's, see api.Dial
	Node   id.Node  // where; 0 is the node of that daemon
	Argv   []string // the command and its arguments
	Path   string   // the file to execute, with a slash, as for execve(2); empty: what Argv[0] says
	Env    []string // nil: this process's
	Dir    string   // empty: this process's
	TTY    TTY      // whether the command gets a terminal
	// Surrogate has this process stand for the command, if that can be: the command has
	// its PID, parent, process group and session, and runs in its place if Node is
	// this node (see Here). It is for a process that does nothing else.
	Surrogate bool
	Stdin     io.Reader // nil: /dev/null. Terminals are seen only in an *os.File
	Stdout    io.Writer // nil: discarded
	Stderr    io.Writer // nil: discarded
}

// ExitStatus is how a command ended.
type ExitStatus struct {
	Code   int         // 0 to 255; valid if Signal is 0
	Signal unix.Signal // the signal that killed it, or 0
	Core   bool        // it dumped core
}

// Number is the status as a shell shows it in $?.
func (s ExitStatus) Number() int {
	if s.Signal != 0 {
		return 128 + int(s.Signal)
	}
	return s.Code
}

// Exit ends this process the way the command ended: with its status, or by its
// signal without dumping core.
func (s ExitStatus) Exit() {
	if s.Signal != 0 {
		proc.DieBy(s.Signal)
	}
	os.Exit(s.Number())
}

// Here is the error of Run if this process, of which a command shall have the PID,
// had better become the command itself: Node is the one it is on.
type Here struct{ Node id.Node }

func (h *Here) Error() string { return "node " + h.Node.String() + " is this one" }

// startTime bounds the way to the node and the start of the relay there.
const startTime = 15 * time.Second

// Run runs a command on a node and relays its files, its terminal and the
// signals that this process receives. If the command could not be run or its
// end is not known, err is a *Failure, a *Here, or the cause of ctx, and the status is
// what a shell would show: 127 not found, 126 found but not run, 255 node lost
// or out of reach.
//
// A Stdin that is not an *os.File may be read from for as long as its Read
// blocks, even after Run has returned.
func Run(ctx context.Context, o Options) (ExitStatus, error) {
	s, err := open(ctx, &o)
	if err != nil {
		var here *Here
		if errors.As(err, &here) {
			return ExitStatus{}, here
		}
		var f *Failure
		if !errors.As(err, &f) {
			var e *errno.Error
			if !errors.As(err, &e) {
				e = errno.New(errno.Other, "", o.Node, "%w", err)
			}
			f = &Failure{255, e}
		}
		return ExitStatus{Code: f.Status}, f
	}
	return s.run(ctx)
}

// open asks the node role of this machine to run the command.
func open(ctx context.Context, o *Options) (*caller, error) {
	req, s, err := prepare(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	dial := api.Dial
	if o.Socket != "" {
		dial = func(ctx context.Context) (*api.Client, error) { return api.DialPath(ctx, o.Socket) }
	}
	client, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	var reply api.ExecReply
	if s.conn, err = client.Upgrade(ctx, api.ExecRun, req, &reply); err != nil {
		_ = client.Close()
		return nil, err
	}
	if reply.Here {
		_ = s.conn.Close()
		return nil, &Here{reply.Node}
	}
	return s, nil
}

// prepare makes the request and this side's state of it.
func prepare(o *Options) (*api.ExecRequest, *caller, error) {
	if len(o.Argv) == 0 || o.Path != "" && !strings.Contains(o.Path, "/") {
		return nil, nil, errno.New(errno.Invalid, "", 0, "no command")
	}
	dir, err := o.Dir, error(nil)
	if dir == "" {
		if dir, err = workingDir(); err != nil {
			return nil, nil, errno.New(errno.NotFound, "", 0, "working directory: %w", err)
		}
	}
	env := o.Env
	if env == nil {
		env = os.Environ()
	}
	req := &api.ExecRequest{Node: o.Node, Argv: joinNUL(o.Argv), Path: []byte(o.Path), Env: joinNUL(env), Dir: []byte(dir), Umask: umask()}
	if n := len(req.Argv) + len(req.Env); n > proc.MaxSpec {
		return nil, nil, &Failure{126, errno.New(errno.Full, "", o.Node,
			"%s: argument list too long: %d bytes with the environment, at most %d", o.Argv[0], n, proc.MaxSpec)}
	}
	s := newCaller(o)
	if s.stdin == nil && o.Stdin == nil {
		req.Files |= noStdin
	}
	if o.Surrogate {
		req.Files |= surrogate
	}
	if o.TTY == TTYAuto && terminal(s.stdin) && terminal(s.stdout) {
		if err := s.useTerminal(req); err != nil {
			return nil, nil, err
		}
	}
	return req, s, nil
}

func terminal(f *os.File) bool { return f != nil && pty.IsTerminal(f) }

// useTerminal asks for a terminal like this one.
func (s *caller) useTerminal(req *api.ExecRequest) error {
	modes, err := pty.Modes(s.stdin)
	if err != nil {
		return err
	}
	rows, cols, err := pty.Size(s.stdin)
	if err != nil {
		return err
	}
	s.term = &screen{f: s.stdin, modes: *modes, entered: make(chan struct{}, 1), moved: make(chan struct{}, 1)}
	req.Term = &api.Term{
		Iflag: modes.Iflag, Oflag: modes.Oflag, Cflag: modes.Cflag, Lflag: modes.Lflag,
		Cc: modes.Cc[:], Rows: rows, Cols: cols,
	}
	if s.stderr == nil || !terminal(s.stderr) {
		req.Files |= splitStderr
	}
	s.front = pty.Foreground(s.stdin)
	if !s.front {
		req.Files |= background
	}
	return nil
}

// workingDir prefers the name in PWD, and needs no permission.
func workingDir() (string, error) {
	if dir, err := os.Getwd(); err == nil {
		return dir, nil
	}
	var buf [unix.PathMax]byte
	n, err := unix.Getcwd(buf[:]) // with a NUL
	if err != nil {
		return "", err
	}
	if n < 2 || buf[0] != '/' {
		return "", unix.ENOENT // "(unreachable)", see getcwd(2)
	}
	return string(buf[:n-1]), nil
}

// umask reads this process's umask without changing it; see
// proc_pid_status(5).
func umask() uint16 {
	b, err := os.ReadFile("/proc/self/status")
	if err == nil {
		if _, rest, ok := strings.Cut(string(b), "\nUmask:\t"); ok {
			line, _, _ := strings.Cut(rest, "\n")
			if v, err := strconv.ParseUint(line, 8, 16); err == nil {
				return uint16(v)
			}
		}
	}
	return 0o022
}
