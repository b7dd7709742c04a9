package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
	"ssi/lab"
	"ssi/vproc/rexec"
)

// The jobs, which this program does in another place than the run.
const (
	jobProcs = "procs" // start processes; prints samples
	jobRexec = "rexec" // run commands on another node as one client; prints samples
	jobRead  = "read"  // read the output of a process; prints samples
	jobPrint = "print" // run a process that prints samples
	jobHold  = "hold"  // start processes that stay, see worker.go; prints their PIDs
	jobCount = "count" // count the processes in /proc; prints the number
	jobObey  = "obey"  // do one job after the other, see worker.go
	jobServe = "serve" // the other side of connections, see serve.go
	jobSSHD  = "sshd"  // becomes sshd, see ssh.go
)

// order is what a job is told.
type order struct {
	Load  load     `json:"load"`
	Argv  []string `json:"argv"`
	Node  id.Node  `json:"node,omitempty"`
	Dir   string   `json:"dir,omitempty"`
	Count int      `json:"count,omitempty"` // how many processes jobHold starts
	Apart bool     `json:"apart,omitempty"` // jobObey is in namespaces of its own
}

func runJob(name string, args []string) error {
	var o order
	if len(args) != 1 {
		return errors.New("a job takes its order as one argument")
	}
	if err := json.Unmarshal([]byte(args[0]), &o); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	switch name {
	case jobServe:
		return serve(ctx, o.Dir)
	case jobSSHD:
		return becomeSSHD(o)
	case jobObey:
		if o.Apart {
			if err := ownProc(); err != nil {
				return err
			}
		}
		// A read that waits can be ended only if the descriptor does not block.
		if err := unix.SetNonblock(int(os.Stdin.Fd()), true); err != nil {
			return err
		}
		return obey(ctx, os.NewFile(os.Stdin.Fd(), "orders"), os.Stdout)
	}
	s, err := sampleJob(ctx, name, o)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(s)
}

// sampleJob does a job that ends by itself and finds samples.
func sampleJob(ctx context.Context, name string, o order) (samples, error) {
	switch name {
	case jobProcs:
		return startIn(ctx, o.Load, o.Dir, o.Argv)
	case jobRexec:
		return callRexec(ctx, o)
	case jobRead:
		return readOutput(ctx, o.Load.For, o.Argv)
	case jobPrint:
		return printed(ctx, o)
	case jobCount:
		return countProcesses()
	}
	return samples{}, errors.New("no such job")
}

// inNode does a job on a node of the common lab.
func (s *site) inNode(ctx context.Context, n id.Node, job string, o order) (samples, error) {
	var out samples
	raw, err := json.Marshal(o)
	if err != nil {
		return out, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return out, err
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(ctx, o.Load.For+30*time.Second)
	defer cancel()
	decoded := make(chan error, 1)
	go func() { decoded <- json.NewDecoder(r).Decode(&out) }()
	code, err := s.lab.Run(ctx, n, lab.Cmd{Args: []string{s.self, jobArg, job, string(raw)}, Stdout: w, Stderr: os.Stderr, Dir: "/", Console: true})
	_ = w.Close()
	_ = r.SetReadDeadline(time.Now().Add(5 * time.Second))
	derr := <-decoded
	switch {
	case err != nil:
		return out, fmt.Errorf("%s on node %d: %w", job, n, err)
	case code != 0:
		return out, fmt.Errorf("%s on node %d: ended with status %d", job, n, code)
	}
	return out, derr
}

// startProcesses starts a process and waits for its end, again and again.
func startProcesses(ctx context.Context, l load, argv []string) (samples, error) {
	return startIn(ctx, l, "", argv)
}

// startIn does that in a directory.
func startIn(ctx context.Context, l load, dir string, argv []string) (samples, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return samples{}, err
	}
	defer null.Close()
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return samples{}, err
	}
	return hammer(ctx, l, func(context.Context, int) error {
		cmd := &exec.Cmd{Path: path, Args: argv, Dir: dir, Stdin: null, Stdout: null, Stderr: os.Stderr}
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", argv[0], err)
		}
		return nil
	})
}

// callRexec is what onnode does, without its start.
func callRexec(ctx context.Context, o order) (samples, error) {
	return hammer(ctx, o.Load, func(ctx context.Context, _ int) error {
		st, err := rexec.Run(ctx, rexec.Options{Node: o.Node, Argv: o.Argv, TTY: rexec.TTYNever})
		if err == nil && st.Number() != 0 {
			err = fmt.Errorf("status %d", st.Number())
		}
		return err
	})
}

// readOutput reads what a process writes to a pipe, for a time.
func readOutput(ctx context.Context, d time.Duration, argv []string) (samples, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return samples{}, err
	}
	defer r.Close()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = w, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		return samples{}, err
	}
	defer func() { // it ends by the broken pipe, or is ended
		_ = r.Close()
		timer := time.AfterFunc(2*time.Second, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		_ = cmd.Wait() // a command that is cut off fails
	}()
	buf := make([]byte, 1<<20)
	if _, err := io.ReadFull(r, buf); err != nil { // what starting costs is another figure
		return samples{}, fmt.Errorf("%s: %w", argv[0], err)
	}
	s := newStream()
	for s.elapsed() < d {
		n, err := r.Read(buf)
		if err != nil {
			return samples{}, fmt.Errorf("%s ended early: %w", argv[0], err)
		}
		s.add(n)
	}
	return samples{Rates: s.rates()}, nil
}
