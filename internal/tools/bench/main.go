// Command bench measures what ssi promises about its speed and size, each figure
// beside a program of the distribution that does the same work (ssh, etcd, pdsh, strace) or
// beside the bare means it is built of (fork and exec, TLS, TCP), and prints one
// table: make bench, or go run ./internal/tools/bench -ssi ./ssi.
//
// # Where it runs
//
// It starts itself again in a mount and a network namespace of its own, so that
// the sshd and the etcd it starts, their keys, their data in a tmpfs and their
// addresses are nobody else's, and nothing of them is left when it ends, however
// it ends. The nodes of ssi are a lab (package lab), which has its own. What must
// be measured inside a node is done by this program again, started there with a
// job as its argument (job.go); it prints its samples as JSON. What needs a program
// without a runtime is in C (programs), compiled at the start of its group.
//
// # Method
//
// A latency is a sample per call; a rate is a sample per window of 250 ms. Every
// figure is the median of its samples, beside the worst 1% and the best. A figure
// and its peers are measured in the same run, one after the other, with the same
// code where the code is ours. Where a promise is a ratio to the native figure, both
// are measured in turn by two workers (worker.go): one that a login started, with
// the gate's filter and the clusterwide /proc, and one at the console of the same
// node, or in a PID namespace of its own, without. A budget is met or not by the number named in it.
// A figure that is over its budget is no failure of the program: only what could
// not be measured is.
//
// # Goroutines and limits
//
// Every goroutine is waited for by the function that starts it, every process is
// killed with its parent. The whole run is bounded by -timeout, each wait by a
// deadline of its own. There are no locks; samples are collected per goroutine.
//
// It must never be linked into the program, change anything of the host's network,
// mounts or configuration, or compare figures of different machines.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// jobArg as first argument makes this program do one job, insideArg the whole
// run.
const (
	jobArg    = "-job"
	insideArg = "-inside"
)

func main() { os.Exit(run(os.Args)) }

func run(args []string) int {
	if len(args) > 2 && args[1] == jobArg {
		if err := runJob(args[2], args[3:]); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", args[2], err)
			return 1
		}
		return 0
	}
	if len(args) > 1 && args[1] == insideArg {
		return bench(args[2:])
	}
	if _, err := parse(args[1:]); err != nil { // before anything is started
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	status, err := inside(args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return status
}

// options are the command line.
type options struct {
	ssi      string
	only     []string
	json     bool
	markdown bool
	timeout  time.Duration
	args     []string // as given
}

func parse(args []string) (options, error) {
	o := options{args: args}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	var only string
	f.StringVar(&o.ssi, "ssi", "./ssi", "the binary to measure")
	f.StringVar(&only, "only", "", "measure only these, separated by commas: "+strings.Join(groupNames(), " "))
	f.BoolVar(&o.json, "json", false, "print everything as JSON")
	f.BoolVar(&o.markdown, "markdown", false, "print a table for docs/benchmarks.md")
	f.DurationVar(&o.timeout, "timeout", 20*time.Minute, "end the run after this time; what is not measured by then has failed")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		err := fmt.Errorf("bench: %q: no arguments are expected", f.Arg(0))
		fmt.Fprintln(os.Stderr, err)
		return o, err
	}
	if only != "" {
		o.only = strings.Split(only, ",")
	}
	for _, name := range o.only {
		if !slices.Contains(groupNames(), name) {
			err := fmt.Errorf("bench: no figure %q: there are %s", name, strings.Join(groupNames(), ", "))
			fmt.Fprintln(os.Stderr, err)
			return o, err
		}
	}
	return o, nil
}

// group is figures that are measured together.
type group struct {
	name    string
	measure func(context.Context, *site) ([]Result, error)
	use     labUse
}

type labUse int

const (
	noLab  labUse = iota // the common lab must not run when it begins: it would disturb
	anyLab               // it does not matter
	common               // the common lab
)

// groups is all figures in the order they are measured and shown: first those
// that leave the common lab as it was.
func groups() []group {
	return []group{
		{"size", measureSize, anyLab},
		{"idle", measureIdle, noLab},
		{"onnode", measureOnnode, common},
		{"dd", measureDD, common},
		{"ps", measurePS, common},
		{"registry", measureRegistry, common},
		{"memory", measureMemory, common},
		{"gate", measureGate, common},
		{"work", measureWork, common},
		{"pauses", measurePauses, common},
		{"failover", measureFailover, common},
		{"proc", measureProc, noLab},
		{"ics", measureCalls, noLab},
		{"bulk", measureBulk, noLab},
		{"lab", measureLab, noLab},
	}
}

func groupNames() []string {
	var names []string
	for _, g := range groups() {
		names = append(names, g.name)
	}
	return names
}

// bench is the run, in its own namespaces.
func bench(args []string) int {
	o, err := parse(args)
	if err != nil {
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("the run took longer than %v", o.timeout))
	defer cancel()
	rep, err := measure(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	print := rep.text
	switch {
	case o.json:
		print = rep.json
	case o.markdown:
		print = rep.markdown
	}
	if err := print(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	if ctx.Err() != nil || rep.failed() {
		return 1
	}
	return 0
}

func measure(ctx context.Context, o options) (_ *report, err error) {
	binary, err := filepath.Abs(o.ssi)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("%w: build it by `make build`, or name it by -ssi", err)
	}
	s, err := newSite(ctx, binary)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	rep := newReport(ctx, o, binary)
	for _, g := range groups() {
		if len(o.only) > 0 && !slices.Contains(o.only, g.name) {
			continue
		}
		began := time.Now()
		results, err := measureGroup(ctx, s, g)
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			results = append(results, Result{Group: g.name, Figure: g.name, Error: err.Error()})
			s.say("%s: %v", g.name, err)
		}
		for i := range results {
			results[i].Group = g.name
		}
		rep.Results = append(rep.Results, results...)
		s.say("%s: done after %.1f s", g.name, time.Since(began).Seconds())
		if ctx.Err() != nil {
			break
		}
	}
	return rep, nil
}

func measureGroup(ctx context.Context, s *site, g group) ([]Result, error) {
	var err error
	switch g.use {
	case noLab:
		err = s.endLab()
	case common:
		err = s.startLab(ctx)
	case anyLab:
	}
	if err != nil {
		return nil, err
	}
	s.say("%s …", g.name)
	return g.measure(ctx, s)
}

// say tells on stderr how far the run is.
func (s *site) say(format string, args ...any) {
	_, _ = fmt.Fprintf(io.Writer(os.Stderr), "bench: "+format+"\n", args...)
}
