package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
	"ssi/lab"
)

// place is where a worker is.
type place int

const (
	byLogin   place = iota // a user's process on a node: with the filter and the clusterwide /proc
	atConsole              // in the same node, without both: the native baseline
	apart                  // in a PID namespace of its own on this machine, without ssi
)

// worker is this program in a place, doing one job after the other as it is told:
// two of them, told in turn, are compared under the same load of the machine.
type worker struct {
	name  string
	in    *os.File // orders go in
	out   *os.File // replies come out
	dec   *json.Decoder
	stop  context.CancelFunc
	ended chan struct{} // closed when it ended; then end is how
	end   error
	pid   chan int // of a worker apart, as the run sees it; one message
}

// task and reply are the lines between the run and a worker.
type task struct {
	Job   string `json:"job"`
	Order order  `json:"order"`
}

type reply struct {
	Samples samples `json:"samples"`
	Error   string  `json:"error,omitempty"`
}

const (
	replyTime = 30 * time.Second // beyond the time of the job itself
	endTime   = 10 * time.Second
)

// startWorker starts a worker; n is no matter apart.
func (s *site) startWorker(ctx context.Context, n id.Node, where place) (*worker, error) {
	name := "the worker apart"
	if where != apart {
		name = fmt.Sprintf("a worker on node %d", n)
	}
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		_, _ = inR.Close(), inW.Close()
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	w := &worker{name: name, in: inW, out: outR, dec: json.NewDecoder(outR), stop: stop, ended: make(chan struct{}), pid: make(chan int, 1)}
	l := s.lab
	go func() {
		var err error
		if where == apart {
			err = s.runApart(ctx, inR, outW, w.pid)
		} else {
			argv := []string{s.self, jobArg, jobObey, "{}"}
			var code int
			code, err = l.Run(ctx, n, lab.Cmd{Args: argv, Stdin: inR, Stdout: outW, Stderr: os.Stderr, Dir: "/", Console: where == atConsole})
			if err == nil && code != 0 {
				err = fmt.Errorf("it ended with status %d", code)
			}
		}
		// Who reads finds the end of the pipe only after w.end is set.
		w.end = err
		close(w.ended)
		_, _ = inR.Close(), outW.Close()
	}()
	return w, nil
}

// runApart runs a worker as PID 1 of a PID namespace with its own /proc: all that
// it started ends with it.
func (s *site) runApart(ctx context.Context, in, out *os.File, pid chan<- int) error {
	// The signal of the parent's death is that of this thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, s.self, jobArg, jobObey, `{"apart":true}`)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	pid <- cmd.Process.Pid
	return cmd.Wait()
}

// ownProc mounts the /proc of a worker apart.
func ownProc() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

// do does a job and waits for what it finds.
func (w *worker) do(ctx context.Context, job string, o order) (samples, error) {
	fail := func(err error) (samples, error) { return samples{}, fmt.Errorf("%s: %s: %w", w.name, job, err) }
	if err := ctx.Err(); err != nil {
		return fail(context.Cause(ctx))
	}
	if err := w.out.SetReadDeadline(time.Now().Add(o.Load.For + replyTime)); err != nil {
		return fail(err)
	}
	line, err := json.Marshal(task{job, o})
	if err != nil {
		return fail(err)
	}
	if _, err := w.in.Write(append(line, '\n')); err != nil {
		return fail(err)
	}
	var r reply
	if err := w.dec.Decode(&r); err != nil {
		select {
		case <-w.ended:
			err = errors.Join(err, w.end)
		default:
		}
		return fail(err)
	}
	if r.Error != "" {
		return fail(errors.New(r.Error))
	}
	return r.Samples, nil
}

// close ends the worker and what it holds.
func (w *worker) close() {
	_ = w.in.Close()
	select {
	case <-w.ended: // how is no matter here
	case <-time.After(endTime):
		w.stop() // it is hung up
		<-w.ended
	}
	w.stop()
	_ = w.out.Close()
}

// pair is two workers that are compared.
type pair struct{ ours, native *worker }

// startPair starts a worker with the filter and one without, in the same node.
func (s *site) startPair(ctx context.Context, n id.Node) (*pair, error) {
	ours, err := s.startWorker(ctx, n, byLogin)
	if err != nil {
		return nil, err
	}
	native, err := s.startWorker(ctx, n, atConsole)
	if err != nil {
		ours.close()
		return nil, err
	}
	return &pair{ours, native}, nil
}

func (p *pair) close() {
	p.ours.close()
	p.native.close()
}

// compare lets both do a job in turn, rounds times; who comes first changes.
func (p *pair) compare(ctx context.Context, rounds int, job string, o order) (ours, native []time.Duration, err error) {
	for i := range 2 * rounds {
		w, list := p.ours, &ours
		if i%4 == 1 || i%4 == 2 {
			w, list = p.native, &native
		}
		got, err := w.do(ctx, job, o)
		if err != nil {
			return nil, nil, err
		}
		*list = append(*list, got.Durations...)
	}
	return ours, native, nil
}

// obey does the tasks that come in, a line each, until there are no more. What it
// was told to hold ends with it.
func obey(ctx context.Context, in *os.File, out io.Writer) error {
	stop := context.AfterFunc(ctx, func() { _ = in.Close() })
	defer stop()
	var held []*exec.Cmd
	defer func() { endAll(held) }()
	dec, enc := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var t task
		err := dec.Decode(&t)
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		var r reply
		if t.Job == jobHold {
			held, err = hold(held, t.Order)
			for _, cmd := range held {
				r.Samples.PIDs = append(r.Samples.PIDs, cmd.Process.Pid)
			}
		} else {
			r.Samples, err = sampleJob(ctx, t.Job, t.Order)
		}
		if err != nil {
			r.Error = err.Error()
		}
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
}

// hold starts processes that stay.
func hold(held []*exec.Cmd, o order) ([]*exec.Cmd, error) {
	for range o.Count {
		cmd := exec.Command(o.Argv[0], o.Argv[1:]...)
		if err := cmd.Start(); err != nil {
			return held, err
		}
		held = append(held, cmd)
	}
	return held, nil
}

func endAll(held []*exec.Cmd) {
	for _, cmd := range held {
		_ = cmd.Process.Kill()
	}
	for _, cmd := range held {
		_ = cmd.Wait() // it was killed
	}
}

// countProcesses counts what /proc lists.
func countProcesses() (samples, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return samples{}, err
	}
	var s samples
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err == nil {
			s.Count++
		}
	}
	return s, nil
}

// printed runs a process that prints samples.
func printed(ctx context.Context, o order) (samples, error) {
	var s samples
	ctx, cancel := context.WithTimeout(ctx, o.Load.For+replyTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, o.Argv[0], o.Argv[1:]...)
	cmd.Stderr = os.Stderr
	// Its children too, which hold the pipe.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	out, err := cmd.Output()
	if err != nil {
		return s, fmt.Errorf("%s: %w", o.Argv[0], err)
	}
	return s, json.Unmarshal(out, &s)
}
