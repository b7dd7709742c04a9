package applet

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"ssi/internal/api"
	"ssi/internal/id"
)

// processEntries is the commands about processes.
func processEntries() []Entry {
	return []Entry{
		{Name: "ps", Short: "list the processes of all nodes", Group: GroupProcess, New: newPS, Stock: true},
		{Name: "top", Short: "watch the processes and loads of all nodes", Group: GroupProcess, New: newTop, Stock: true},
		{Name: "kill", Short: "signal processes on any node", Group: GroupProcess, New: newKill, Stock: true},
		{Name: "where_pid", Short: "print the node that runs a process", Group: GroupProcess, New: newWherePID},
		{Name: "loads", Short: "print the loads of the nodes", Group: GroupProcess, New: newLoads},
	}
}

// listing is the processes of the nodes that were asked.
type listing struct {
	Processes []api.Process `json:"processes"`
	Loads     []api.Load    `json:"loads,omitempty"`
	Errors    []string      `json:"errors,omitempty"` // a line for each node that did not answer
}

// listProcesses asks for processes and puts them in the order of node and PID.
func listProcesses(ctx context.Context, env *Env, req api.ListProcesses) (*listing, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, api.MaxNodeTimeout*time.Millisecond+CallTimeout,
		fmt.Errorf("the ssi daemon of this machine did not finish the list"))
	defer cancel()
	l := &listing{Processes: []api.Process{}}
	err := Watch(ctx, env, api.ProcessList, req, func(b api.ProcessBatch) error {
		l.Processes = append(l.Processes, b.Processes...)
		if b.Load != nil {
			l.Loads = append(l.Loads, *b.Load)
		}
		if b.Error != "" {
			l.Errors = append(l.Errors, b.Error)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(l.Processes, func(a, b api.Process) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.PID, b.PID))
	})
	slices.SortFunc(l.Loads, func(a, b api.Load) int { return cmp.Compare(a.Node, b.Node) })
	slices.Sort(l.Errors)
	return l, nil
}

// report prints the lines of the nodes that did not answer; they make the exit
// status 1.
func (l *listing) report(env *Env, command string) error {
	for _, e := range l.Errors {
		fmt.Fprintf(env.Stderr, "%s: %s\n", command, e)
	}
	if len(l.Errors) > 0 {
		return StatusError(StatusFailure)
	}
	return nil
}

// optionalNode reads the value of a --node option; "" is no node.
func optionalNode(ctx context.Context, env *Env, arg string) (id.Node, error) {
	if arg == "" {
		return 0, nil
	}
	return nodeArg(ctx, env, arg)
}

// splitList splits a list argument of ps or kill at commas and blanks.
func splitList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
}

// parseMillis reads a --timeout: a duration such as 500ms or 3s.
func parseMillis(s string) (int, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Millisecond || d > api.MaxNodeTimeout*time.Millisecond {
		return 0, Usagef("--timeout %q is not a duration of 1ms to %v", s, api.MaxNodeTimeout*time.Millisecond)
	}
	return int(d / time.Millisecond), nil
}
