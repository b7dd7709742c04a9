package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/pty"
)

// Cmd is a command to run in a node.
type Cmd struct {
	Args []string
	Env  []string // default: this process's, see nodeEnv
	Dir  string   // default: this process's; "/" if the node has no such directory

	// nil is /dev/null. At the console they are handed over as they are.
	Stdin, Stdout, Stderr *os.File
	// TTY gives the command a terminal of the node, relayed to Stdin and Stdout,
	// which must be terminals.
	TTY bool
	// Console runs the command past the node's daemon, by entering the node's
	// namespaces from outside: also when the node is fenced or its daemon is gone.
	// It is none of the processes that the cluster knows as its users'.
	Console bool
	// Signals are passed on to the process group of the command. Without Console
	// it gets what this process gets, see rexec.Run.
	Signals <-chan os.Signal
}

func (c *Cmd) dir() string {
	if c.Dir != "" {
		return c.Dir
	}
	dir, err := os.Getwd()
	if err != nil {
		return "/"
	}
	return dir
}

// Exec runs a command in node n, as a login does, without input and returns what
// it wrote and its exit status, 128 + N for death by signal N. An error means
// that it did not run to its end.
func (l *Lab) Exec(ctx context.Context, n id.Node, args ...string) (out []byte, code int, err error) {
	if l.machines() {
		return l.Console(ctx, n, args...)
	}
	var buf bytes.Buffer // written by one goroutine of rexec.Run
	code, err = l.login(ctx, n, &Cmd{Args: args}, nil, &buf, &buf)
	return buf.Bytes(), code, err
}

// Console is Exec at the console, see Cmd.Console.
func (l *Lab) Console(ctx context.Context, n id.Node, args ...string) (out []byte, code int, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, 0, fmt.Errorf("lab: %w", err)
	}
	var buf bytes.Buffer
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(&buf, r) })
	code, err = l.Run(ctx, n, Cmd{Args: args, Stdout: w, Stderr: w, Console: true})
	_ = w.Close()
	// What the command left running may hold the pipe.
	_ = r.SetReadDeadline(time.Now().Add(drainTime))
	wg.Wait()
	_ = r.Close()
	return buf.Bytes(), code, err
}

// drainTime is how long the rest of the output of a command that ended is waited
// for.
const drainTime = 200 * time.Millisecond

// Run runs a command in node n and returns its exit status, 128 + N for death by
// signal N. When ctx ends, the command is hung up.
func (l *Lab) Run(ctx context.Context, n id.Node, c Cmd) (int, error) {
	if c.Console || l.machines() {
		return l.console(ctx, n, &c)
	}
	// An interface that holds a nil file is not nil.
	var stdin io.Reader
	var stdout, stderr io.Writer
	if c.Stdin != nil {
		stdin = c.Stdin
	}
	if c.Stdout != nil {
		stdout = c.Stdout
	}
	if c.Stderr != nil {
		stderr = c.Stderr
	}
	return l.login(ctx, n, &c, stdin, stdout, stderr)
}

// console runs a command past the node's daemon.
func (l *Lab) console(ctx context.Context, n id.Node, c *Cmd) (int, error) {
	p := execParams{Node: n, Args: c.Args, Env: l.nodeEnv(c.Env), Dir: c.dir(), TTY: c.TTY}
	if c.TTY {
		if rows, cols, err := pty.Size(c.Stdout); err == nil {
			p.Rows, p.Cols = rows, cols
		}
	}
	client, err := l.dial(ctx)
	if err != nil {
		return 255, err
	}
	defer client.Close()
	up, err := client.Upgrade(ctx, methodExec, p, nil)
	if err != nil {
		return 255, err
	}
	conn, ok := up.(fdConn)
	if !ok {
		return 255, errno.New(errno.Other, "exec", n, "this connection passes no descriptors")
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	end, err := converse(conn, c)
	switch {
	case ctx.Err() != nil:
		return 255, context.Cause(ctx)
	case err != nil:
		return 255, errno.New(errno.Unavailable, "exec", n, "the lab ended meanwhile")
	case end.Error != "":
		return end.Code, errno.New(errno.Other, "exec", 0, "%s", end.Error)
	}
	return end.Code, nil
}

// converse is the client's side of a session.
func converse(conn fdConn, c *Cmd) (sessionEnd, error) {
	var end sessionEnd
	var relay *terminalRelay
	if c.TTY {
		if err := sendFiles(conn); err != nil {
			return end, err
		}
		master, err := receiveFiles(conn, 1)
		if err == nil {
			relay, err = relayTerminal(c.Stdin, c.Stdout, master[0])
			if err != nil {
				return end, err
			}
			defer relay.close()
		} else if errno.KindOf(err) != errno.Invalid { // no descriptor came: the command did not start
			return end, err
		}
	} else {
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			return end, fmt.Errorf("lab: %w", err)
		}
		defer null.Close()
		stdio := []*os.File{c.Stdin, c.Stdout, c.Stderr}
		for i := range stdio {
			if stdio[i] == nil {
				stdio[i] = null
			}
		}
		if err := sendFiles(conn, stdio...); err != nil {
			return end, err
		}
		if _, err := receiveFiles(conn, 0); err != nil {
			return end, err
		}
	}
	ended, passed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(passed)
		passSignals(conn, c.Signals, ended)
	}()
	err := json.NewDecoder(conn).Decode(&end)
	close(ended)
	<-passed
	return end, err
}

func passSignals(conn io.Writer, signals <-chan os.Signal, ended <-chan struct{}) {
	enc := json.NewEncoder(conn)
	for {
		select {
		case sig := <-signals:
			if n, ok := sig.(unix.Signal); ok {
				if enc.Encode(sessionSignal{Signal: int(n)}) != nil {
					return
				}
			}
		case <-ended:
			return
		}
	}
}

// nodeEnv is the environment of a command: env (default this process's), with the
// links to the commands first in PATH, and without what points at the host's own
// daemon.
func (l *Lab) nodeEnv(env []string) []string {
	if env == nil {
		env = os.Environ()
	}
	path := nodePath
	out := make([]string, 0, len(env)+2)
	for _, v := range env {
		switch name, value, _ := strings.Cut(v, "="); name {
		case "PATH":
			path = linkDir + ":" + value
		case "SSI_SOCKET", "SSI_LAB", "PWD", "OLDPWD":
		default:
			out = append(out, v)
		}
	}
	return append(out, "PATH="+path, "SSI_LAB="+l.Name)
}
