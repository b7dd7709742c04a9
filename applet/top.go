package applet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"ssi/internal/api"
)

// topOptions is a command line of top.
type topOptions struct {
	batch      bool
	iterations int
	delay      float64
	sort       string
	user       string
	pids       string
	node       string
	idle       bool
	args       bool
}

const (
	topMinDelay = 200 * time.Millisecond
	topMaxDelay = time.Hour
)

func newTop(env *Env) *cobra.Command {
	var o topOptions
	cmd := &cobra.Command{
		Use:   "top",
		Short: "watch the processes and loads of all nodes",
		Long: `top shows the processes of all nodes and the load of each, again and again.

Keys:
  q ^C          leave                    ^Z            stop (fg goes on)
  P M T         sort by CPU, memory, time
  N n U         sort by process ID, node, user
  R             reverse the order
  / Esc         show only what contains a text; show all again
  u             show only one user       o             show only one node
  i             hide idle processes      c             whole command lines
  k             signal a process         r             renice a process
  d             change the delay         space         refresh now
  up down PgUp PgDn Home End             select a process

A node that does not answer has a line that says so. %CPU is of one CPU.`,
		Example: `  ssi top
  ssi top --node 2 -o mem
  ssi top -b -n 1 | head -20`,
		Args: Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return runTop(cmd.Context(), env, &o) },
	}
	f := cmd.Flags()
	f.BoolVarP(&o.batch, "batch", "b", false, "print whole lists without a terminal, for scripts")
	f.IntVarP(&o.iterations, "iterations", "n", 0, "end after `N` lists; 0 goes on")
	f.Float64VarP(&o.delay, "delay", "d", 3, "`SECONDS` between lists, 0.2 at least")
	f.StringVarP(&o.sort, "sort", "o", "cpu", "sort by `FIELD`: "+strings.Join(topSorts(), ", ")+"; -FIELD reverses")
	f.StringVarP(&o.user, "user", "u", "", "only processes of `USER`")
	f.StringVarP(&o.pids, "pid", "p", "", "only the processes of this `LIST`")
	f.StringVar(&o.node, "node", "", "only this `NODE`, by number or name")
	f.BoolVarP(&o.idle, "hide-idle", "i", false, "hide processes that used no CPU")
	f.BoolVarP(&o.args, "command", "c", false, "show whole command lines")
	return Manual(cmd, exitPlain, "ps(1)", "kill(1)", "loads(1)")
}

func runTop(ctx context.Context, env *Env, o *topOptions) error {
	t := &top{env: env, model: newTopModel(), left: o.iterations}
	m := t.model
	m.reverse = strings.HasPrefix(o.sort, "-")
	m.sort = strings.TrimLeft(strings.ToLower(o.sort), "-+%")
	m.user, m.idle, m.args = o.user, o.idle, o.args
	if !slices.Contains(topSorts(), m.sort) {
		return Usagef("cannot sort by %q; it is one of %s", o.sort, strings.Join(topSorts(), ", "))
	}
	t.delay = time.Duration(o.delay * float64(time.Second))
	if !(o.delay >= topMinDelay.Seconds() && o.delay <= topMaxDelay.Seconds()) {
		return Usagef("-d %v: the delay is %v to %v seconds", o.delay, topMinDelay.Seconds(), topMaxDelay.Seconds())
	}
	if o.iterations < 0 {
		return Usagef("-n %d: the number of lists is 1 or more, or 0 for any", o.iterations)
	}
	if o.pids != "" {
		pids, err := parsePIDs(o.pids)
		if err != nil {
			return Usagef("-p: %v", err)
		}
		t.req.PIDs = pids
	}
	node, err := optionalNode(ctx, env, o.node)
	if err != nil {
		return err
	}
	t.req.Node, t.req.Local = node, env.LocalView()
	sigs := make(chan os.Signal, 8)
	signal.Notify(sigs, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(sigs)
	if o.batch {
		return t.runBatch(ctx, sigs)
	}
	return t.runLive(ctx, sigs)
}

// top is one run of the command.
type top struct {
	env   *Env
	model *topModel
	req   api.ListProcesses
	delay time.Duration
	left  int // lists still to make; 0: any number

	screen *topScreen
	prompt *topPrompt
	quit   bool
}

// runBatch prints lists one below the other.
func (t *top) runBatch(ctx context.Context, sigs <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for n := 0; ; n++ {
		select {
		case <-timer.C:
		case <-sigs:
			return nil
		}
		l, err := t.fetch(ctx, sigs, cancel)
		if errors.Is(err, errTopSignal) {
			return nil
		}
		if err != nil {
			return err
		}
		t.model.update(l, t.env.Now())
		if err := t.printBatch(n > 0); err != nil {
			return err
		}
		if t.left > 0 && n+1 >= t.left {
			return nil
		}
		timer.Reset(t.delay)
	}
}

var errTopSignal = errors.New("ended by a signal")

// fetch makes one list, or ends early by a signal.
func (t *top) fetch(ctx context.Context, sigs <-chan os.Signal, cancel func()) (*listing, error) {
	done := make(chan topResult, 1)
	go func() { done <- t.list(ctx) }()
	select {
	case r := <-done:
		return r.list, r.err
	case <-sigs:
		cancel()
		<-done
		return nil, errTopSignal
	}
}

type topResult struct {
	list *listing
	err  error
	note string // outcome of an action
}

func (t *top) list(ctx context.Context) topResult {
	l, err := listProcesses(ctx, t.env, t.req)
	return topResult{list: l, err: err}
}

func (t *top) printBatch(again bool) error {
	out := bufio.NewWriter(t.env.Stdout)
	if again {
		fmt.Fprintln(out)
	}
	for _, l := range t.model.head(len(t.model.list.Loads)) {
		fmt.Fprintln(out, strings.TrimRight(l.text, " "))
	}
	fmt.Fprintf(out, "\n%s\n", topHeader)
	for _, p := range t.model.rows {
		fmt.Fprintln(out, t.model.row(p))
	}
	return out.Flush()
}
