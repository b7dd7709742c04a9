package applet

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"ssi/internal/api"
	"ssi/internal/errno"
)

// fanOptions are the flags of the commands that run on several nodes.
type fanOptions struct {
	noPrefix bool
	jobs     int
	local    bool
	pin      bool
}

func (o *fanOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.BoolVar(&o.noPrefix, "no-prefix", false, "print the output as it is, without the names of the nodes")
	f.IntVarP(&o.jobs, "jobs", "j", 32, "run on at most `N` nodes at once")
	f.BoolVarP(&o.local, "localview", "l", false, "the programs see their own node only")
	f.BoolVarP(&o.pin, "pin", "p", false, "the programs stay on their nodes")
}

const exitFan = "0 the program succeeded on every node\nN the highest of the exit statuses, and the last line of stderr says which nodes failed; 128+S is death by signal S\n255 a node could not be reached or died meanwhile, or there is none\n2 the command line makes no sense"

func newOnAll(env *Env) *cobra.Command {
	var opts fanOptions
	cmd := &cobra.Command{
		Use:   "onall [OPTION…] COMMAND [ARGUMENT…]",
		Short: "run a program on all nodes",
		Long: `onall runs a program on every node that is UP, at the same time. Each line of
output begins with the name of its node; lines of different nodes mix, but never
within a line. Standard input is empty. The environment, directory and user are
those of onnode. If the program failed anywhere, the last line of standard error
names the nodes where it did, and how.`,
		Example: `  onall uptime
  onall -j1 apt-get -y upgrade      one after the other
  onall --no-prefix cat /etc/machine-id | sort | uniq -c`,
		Args: Args(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return fan(cmd.Context(), env, "onall", opts, args, func(s *api.ClusterStatus) ([]api.NodeInfo, error) {
				nodes := upNodes(s)
				if env.LocalView() {
					nodes = slices.DeleteFunc(nodes, func(n api.NodeInfo) bool { return n.Node != s.Self })
				}
				if len(nodes) == 0 {
					return nil, errno.New(errno.Unavailable, "", 0, "no node is UP; see `cluster`")
				}
				return nodes, nil
			})
		},
	}
	opts.flags(cmd)
	return Manual(cmd, exitFan, "onnode(1)", "onclass(1)")
}

func newOnClass(env *Env) *cobra.Command {
	var opts fanOptions
	cmd := &cobra.Command{
		Use:   "onclass [OPTION…] CLASS COMMAND [ARGUMENT…]",
		Short: "run a program on the nodes of a class",
		Long: `onclass runs a program on every node that is UP and belongs to a class, at the
same time, as onall does on all. A node's classes are in its configuration
("classes" in /etc/ssi/ssi.toml); cluster -v shows them.`,
		Example: `  onclass web systemctl reload nginx`,
		Args:    Args(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return fan(cmd.Context(), env, "onclass", opts, args[1:], func(s *api.ClusterStatus) ([]api.NodeInfo, error) {
				return classNodes(s, args[0])
			})
		},
		ValidArgsFunction: completeClasses(env),
	}
	opts.flags(cmd)
	return Manual(cmd, exitFan, "onall(1)", "onnode(1)", "cluster(1)")
}

func upNodes(s *api.ClusterStatus) []api.NodeInfo {
	return slices.DeleteFunc(slices.Clone(s.Nodes), func(n api.NodeInfo) bool {
		return n.State != api.Up || n.Role == api.RoleWitness
	})
}

func classNodes(s *api.ClusterStatus, class string) ([]api.NodeInfo, error) {
	nodes := upNodes(s)
	var classes []string
	for _, n := range nodes {
		classes = append(classes, n.Classes...)
	}
	slices.Sort(classes)
	classes = slices.Compact(classes)
	nodes = slices.DeleteFunc(nodes, func(n api.NodeInfo) bool { return !slices.Contains(n.Classes, class) })
	if len(nodes) == 0 {
		return nil, errno.New(errno.NotFound, "", 0, "no node that is UP is of class %q; the classes are: %s", class, orDash(strings.Join(classes, " ")))
	}
	return nodes, nil
}

// fan runs argv on the nodes that choose picks and returns the highest status.
func fan(ctx context.Context, env *Env, name string, opts fanOptions, argv []string, choose func(*api.ClusterStatus) ([]api.NodeInfo, error)) error {
	if opts.jobs < 1 {
		return Usagef("-j %d: at least one node at a time", opts.jobs)
	}
	s, err := Status(ctx, env)
	if err == nil && !s.Serving {
		err = errno.New(errno.Fenced, "", s.Self, "this node is fenced: %s", s.Cause)
	}
	if err != nil {
		return &failed{status: statusNodeLost, err: err}
	}
	nodes, err := choose(s)
	if err != nil {
		return &failed{status: statusNodeLost, err: err}
	}

	var mu sync.Mutex // guards the output streams
	ends := make([]end, len(nodes))
	var g errgroup.Group
	g.SetLimit(opts.jobs)
	for i, n := range nodes {
		g.Go(func() error {
			out := &lineWriter{mu: &mu, w: env.Stdout}
			errs := &lineWriter{mu: &mu, w: env.Stderr}
			if !opts.noPrefix {
				out.prefix, errs.prefix = n.Name+": ", n.Name+": "
			}
			req := ExecRequest{Name: name, Node: n.Node, Argv: argv, Pin: opts.pin, Stdout: out, Stderr: errs}
			if opts.local {
				req.Env = append(req.Env, LocalViewEnv+"=1")
			}
			status, err := env.Exec(ctx, req)
			out.flush()
			errs.flush()
			if err != nil && status == 0 {
				status = statusNodeLost
			}
			ends[i] = end{n.Name, status, err}
			return nil
		})
	}
	_ = g.Wait()
	return reportEnds(env, name, ends)
}

// end is how the program ended on one node.
type end struct {
	node   string // its name
	status int
	err    error // why it did not run, or how it ended is not known
}

// reportEnds says in one line on which nodes the program failed, if it did, and
// returns the highest status.
func reportEnds(env *Env, name string, ends []end) error {
	highest := 0
	var failures []string
	for _, e := range ends {
		highest = max(highest, e.status)
		if e.status != 0 {
			failures = append(failures, e.node+" ("+e.cause()+")")
		}
	}
	if highest == 0 {
		return nil
	}
	fmt.Fprintf(env.Stderr, "%s: failed on %d of %d nodes: %s\n", name, len(failures), len(ends), strings.Join(failures, ", "))
	return StatusError(highest)
}

func (e *end) cause() string {
	switch sig := e.status - 128; {
	case e.err != nil:
		return message(e.err)
	case sig > 0 && sig <= sigRTMax:
		return "status " + strconv.Itoa(e.status) + ", signal " + signalName(sig)
	}
	return "status " + strconv.Itoa(e.status)
}

// maxLine is how many bytes of an unfinished line are held back.
const maxLine = 64 << 10

// lineWriter writes whole lines with a prefix; several share a stream.
type lineWriter struct {
	mu     *sync.Mutex // held while w is written
	w      io.Writer
	prefix string
	rest   []byte // of an unfinished line
}

func (l *lineWriter) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	end := bytes.LastIndexByte(l.rest, '\n') + 1
	if len(l.rest)-end > maxLine {
		l.rest = append(l.rest, '\n')
		end = len(l.rest)
	}
	if err := l.put(l.rest[:end]); err != nil {
		return 0, err
	}
	l.rest = append(l.rest[:0], l.rest[end:]...)
	return len(p), nil
}

// flush ends an unfinished line.
func (l *lineWriter) flush() {
	if len(l.rest) > 0 {
		_ = l.put(append(l.rest, '\n'))
		l.rest = nil
	}
}

func (l *lineWriter) put(lines []byte) error {
	if len(lines) == 0 {
		return nil
	}
	text := lines
	if l.prefix != "" {
		text = nil
		for line := range bytes.Lines(lines) {
			text = append(text, l.prefix...)
			text = append(text, line...)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.w.Write(text)
	return err
}
