package applet

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// CallTimeout is how long a command waits for the answer of its node daemon.
// It is longer than any deadline the daemon sets itself, so that the daemon's
// reason arrives.
const CallTimeout = 30 * time.Second

// Call asks the node daemon of this machine one thing.
func Call[R any](ctx context.Context, env *Env, method string, params any) (R, error) {
	var result R
	ctx, cancel := context.WithTimeoutCause(ctx, CallTimeout,
		fmt.Errorf("the ssi daemon of this machine gave no answer within %v", CallTimeout))
	defer cancel()
	c, err := env.Dial(ctx)
	if err != nil {
		return result, err
	}
	err = c.Call(ctx, method, params, &result)
	if cerr := c.Close(); err == nil {
		err = cerr
	}
	return result, err
}

// Watch calls f with each message of a stream until the stream or ctx ends, or
// f fails.
func Watch[R any](ctx context.Context, env *Env, method string, params any, f func(R) error) error {
	c, err := env.Dial(ctx)
	if err != nil {
		return err
	}
	err = c.Stream(ctx, method, params, func(raw json.RawMessage) error {
		var r R
		if err := json.Unmarshal(raw, &r); err != nil {
			return fmt.Errorf("%s: %w", method, err)
		}
		return f(r)
	})
	if cerr := c.Close(); err == nil {
		err = cerr
	}
	return err
}

// Status asks for the cluster as this node sees it; the answer comes at once.
func Status(ctx context.Context, env *Env) (*api.ClusterStatus, error) {
	return status(ctx, env, api.StatusParams{})
}

// MeasuredStatus is Status with the loads and clocks of the nodes, which have to
// be asked.
func MeasuredStatus(ctx context.Context, env *Env) (*api.ClusterStatus, error) {
	return status(ctx, env, api.StatusParams{Measure: true})
}

func status(ctx context.Context, env *Env, params api.StatusParams) (*api.ClusterStatus, error) {
	s, err := Call[api.ClusterStatus](ctx, env, api.MethodClusterStatus, params)
	if err != nil {
		return nil, err
	}
	return &s, nil
}

// PrintJSON prints v for programs.
func PrintJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// table prints aligned columns; the caller flushes it.
func newTable(w io.Writer) *tabwriter.Writer {
	return tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
}

// nodeArg reads an argument that names a node: a number, or a name, which costs
// a question to the daemon.
func nodeArg(ctx context.Context, env *Env, arg string) (id.Node, error) {
	if arg != "" && strings.Trim(arg, "0123456789") == "" {
		n, err := id.ParseNode(arg)
		if err != nil {
			return 0, Usagef("%v", err)
		}
		return n, nil
	}
	s, err := Status(ctx, env)
	if err != nil {
		return 0, err
	}
	var names []string
	for _, node := range s.Nodes {
		if node.Name == arg {
			return node.Node, nil
		}
		names = append(names, node.Name)
	}
	return 0, errno.New(errno.NotFound, "", 0, "no node is named %q; the nodes are: %s", arg, strings.Join(names, " "))
}

// age prints a duration in at most two units: 3s, 2m05s, 4h07m, 12d03h.
func age(d time.Duration) string {
	d = max(d, 0).Truncate(time.Second)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%02dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

// stamp prints a moment; the same form everywhere, sortable.
func stamp(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }
