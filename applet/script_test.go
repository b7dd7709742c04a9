package applet_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"ssi/applet"
	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/feature"
)

var update = flag.Bool("update", false, "rewrite what the scripts expect")

func TestMain(m *testing.M) {
	commands := map[string]func(){"ssi": command}
	for _, e := range applet.Table() {
		if !e.NoLink {
			commands[e.Name] = command
		}
	}
	testscript.Main(m, commands)
}

// command is what every program name in a script runs: the real Main over the
// real table, with the daemon side faked.
func command() {
	env := applet.System(os.Args, "v0-test")
	env.Now = now
	env.Exec = fakeExec
	env.Bootstrap = fakeBootstrap{}
	if os.Getenv("FAKE_PROBES") != "" {
		env.Probes = fakeProbes
	}
	os.Exit(applet.Main(env, applet.Table()))
}

// fakeExec runs the program here. Node 3 is down, nodes over 4 do not exist.
func fakeExec(ctx context.Context, req applet.ExecRequest) (int, error) {
	switch {
	case req.Node == 3:
		return 255, errno.New(errno.Unavailable, "", 3, "it is DOWN (no contact for 1.3s)")
	case req.Node > 4:
		return 255, errno.New(errno.NotFound, "", req.Node, "there is no such node")
	}
	cmd := exec.CommandContext(ctx, req.Argv[0], req.Argv[1:]...)
	cmd.Env = append(append(os.Environ(), "SSI_NODE="+req.Node.String()), req.Env...)
	cmd.Stdout, cmd.Stderr = req.Stdout, req.Stderr
	if req.Attach {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return 128 + int(ws.Signal()), nil
		}
		return exit.ExitCode(), nil
	}
	if errors.Is(err, exec.ErrNotFound) {
		return 127, errno.New(errno.NotFound, "", req.Node, "%s: not found", req.Argv[0])
	}
	return 0, err
}

// fakeBootstrap says what it was asked to do.
type fakeBootstrap struct{}

func (fakeBootstrap) Init(_ context.Context, o applet.InitOptions) (applet.InitResult, error) {
	if !o.Force && os.Getenv("FAKE_MEMBER") != "" {
		return applet.InitResult{}, errors.New("this machine is node 1 of cluster lab already; --force forgets it")
	}
	res := applet.InitResult{ID: "0011", Name: o.Name, Node: o.Node, Addr: o.Addr}
	for i := range o.Tokens {
		res.Tokens = append(res.Tokens, fmt.Sprintf("ssi1-token%d", i))
	}
	return res, nil
}

func (fakeBootstrap) Join(_ context.Context, o applet.JoinOptions) (applet.JoinResult, error) {
	if o.Token != "ssi1-secret" {
		return applet.JoinResult{}, errors.New("the token is expired since 2026-01-01 00:00:00; make a new one: `cluster token`")
	}
	fmt.Fprintf(os.Stderr, "asked %s as %q witness=%v\n", strings.Join(o.Addrs, ","), o.Name, o.Witness)
	return applet.JoinResult{ID: "0011", Name: "lab", Node: 5}, nil
}

func (fakeBootstrap) Rejoin(context.Context) (string, error) { return "/var/lib/ssi/raft.aside", nil }

func fakeProbes(_ context.Context, o feature.Options) []feature.Result {
	results := []feature.Result{
		{Area: "kernel", Name: "pidfd", Level: feature.OK, Required: true, Text: "works"},
		{Area: "clock", Name: "synchronised", Level: feature.Warn, Text: "no", Todo: "install chrony"},
		{Area: "network", Name: "port", Level: feature.OK, Required: true, Text: fmt.Sprintf("%s running=%v clocks=%d", o.Listen, o.Running, len(o.Clocks))},
	}
	if os.Getenv("FAKE_PROBES") == "bad" {
		results[0].Level, results[0].Text, results[0].Todo = feature.Missing, "function not implemented", "use a newer kernel"
	}
	return results
}

func TestScripts(t *testing.T) {
	type key struct{}
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		ContinueOnError:     true,
		Setup: func(e *testscript.Env) error {
			// A socket's path is short (108 bytes), a script's directory is not.
			dir, err := os.MkdirTemp("", "ssi")
			if err != nil {
				return err
			}
			socket := filepath.Join(dir, "s")
			d, err := newFakeDaemon(socket)
			if err != nil {
				return err
			}
			e.Defer(func() {
				d.close()
				_ = os.RemoveAll(dir)
			})
			e.Setenv(api.SocketEnv, socket)
			e.Setenv("TZ", "UTC")
			e.Values[key{}] = d
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// status N COMMAND…: the command ends with status N.
			"status": func(ts *testscript.TestScript, _ bool, args []string) {
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				got := 0
				var exit *exec.ExitError
				if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
					got = exit.ExitCode()
				} else {
					ts.Check(err)
				}
				if got != want {
					ts.Fatalf("status %d, want %d", got, want)
				}
			},
			// mood WORD…: change the daemon's answers.
			"mood": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(ts.Value(key{}).(*fakeDaemon).mood(args))
			},
			// calls: print what the daemon was asked to change, and forget it.
			"calls": func(ts *testscript.TestScript, _ bool, _ []string) {
				d := ts.Value(key{}).(*fakeDaemon)
				d.mu.Lock()
				defer d.mu.Unlock()
				for _, call := range d.calls {
					fmt.Fprintln(ts.Stdout(), call)
				}
				d.calls = nil
			},
		},
	})
}
