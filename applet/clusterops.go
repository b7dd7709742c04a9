package applet

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"ssi/internal/api"
	"ssi/internal/id"
)

func newToken(env *Env) *cobra.Command {
	var params api.TokenParams
	var node uint16
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "token [--ttl DURATION] [--node N] [--witness]",
		Short: "make a one-time token for a machine that shall join",
		Long: `token prints a one-time token and, on the lines below, the addresses where it is
accepted; cluster join reads both. The token is a secret: who has it may become
a node of the cluster. It is good once, until it expires, and only for this
cluster. Only root may make one.`,
		Example: `  cluster token
  cluster token --ttl 24h --node 7 > token && scp token new:
  cluster token --witness`,
		Args: Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			params.Node = id.Node(node)
			if cmd.Flags().Changed("node") && !params.Node.Valid() {
				return Usagef("--node %d: node numbers are 1 to %d", node, id.MaxNode)
			}
			if params.TTL <= 0 || params.TTL > api.MaxTokenTTL {
				return Usagef("--ttl %v: a token is good for at most %v", params.TTL, api.MaxTokenTTL)
			}
			res, err := Call[api.TokenReply](cmd.Context(), env, api.MethodClusterToken, params)
			if err != nil {
				return err
			}
			if asJSON {
				return PrintJSON(env.Stdout, res)
			}
			fmt.Fprintln(env.Stdout, res.Token)
			for _, addr := range res.Addrs {
				fmt.Fprintln(env.Stdout, addr)
			}
			_, err = fmt.Fprintf(env.Stderr, "Good once, until %s.\n", stamp(res.Expires))
			return err
		},
	}
	f := cmd.Flags()
	f.DurationVar(&params.TTL, "ttl", api.DefaultTokenTTL, "how long it is good for: 90s, 10m, 24h")
	f.Uint16Var(&node, "node", 0, "the `NUMBER` it gives (default: the lowest free one)")
	f.BoolVar(&params.Witness, "witness", false, "for a tie-breaker, see cluster witness")
	f.BoolVar(&asJSON, "json", false, "print it as JSON")
	return Manual(cmd, exitPlain, "cluster-join(1)", "cluster-witness(1)", "cluster-revoke(1)")
}

func newRevoke(env *Env) *cobra.Command {
	var cause string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "revoke NODE",
		Short: "withdraw the certificate of a node for ever",
		Long: `revoke withdraws every certificate of a node: its connections end at once and
it cannot come back with them. A node that is still in the cluster is taken
down; once it is DOWN its number is free again, for a machine with a new token.
Only root may do it.`,
		Example: `  cluster revoke 3 --cause "stolen"`,
		Args:    Args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := nodeArg(cmd.Context(), env, args[0])
			if err != nil {
				return err
			}
			res, err := Call[api.RevokeReply](cmd.Context(), env, api.MethodClusterRevoke, api.RevokeParams{Node: n, Cause: cause})
			if err != nil {
				return err
			}
			if asJSON {
				return PrintJSON(env.Stdout, res)
			}
			_, err = fmt.Fprintf(env.Stdout, "Node %d is revoked.\n", res.Node)
			return err
		},
		ValidArgsFunction: completeNodes(env, false),
	}
	cmd.Flags().StringVar(&cause, "cause", "", "why, for the history")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return Manual(cmd, exitPlain, "cluster-token(1)", "clusternode_setstate(1)")
}

func newForce(env *Env) *cobra.Command {
	var yes, asJSON bool
	var cause string
	cmd := &cobra.Command{
		Use:   "force [--yes]",
		Short: "go on without the voters that are lost",
		Long: `force is for a cluster that cannot decide because voters are gone for good. It
makes this node the only voter; the cluster goes on from the state that this
node has. What was decided and did not reach this node is lost, so choose the
node with the highest transition number (cluster -v on each).

Make sure that the other voters are switched off or cut off first. If one of
them is alive behind a broken network, it stays without init; when it reaches
this node again it learns that it was forced out, drops its copy of the state and
joins again under its number.

force asks before it acts; --yes answers. Only root may do it.`,
		Example: `  cluster -v          is this the most recent node?
  cluster force`,
		Args: Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := Status(cmd.Context(), env)
			if err != nil {
				return err
			}
			if !yes {
				if err := confirm(env, s); err != nil {
					return err
				}
			}
			res, err := Call[api.ForceReply](cmd.Context(), env, api.MethodClusterForce, api.ForceParams{Cause: cause})
			if err != nil {
				return err
			}
			if asJSON {
				return PrintJSON(env.Stdout, res)
			}
			fmt.Fprintf(env.Stdout, "Node %d is the only voter now (recovery %d).\n", s.Self, res.Recovery)
			for _, n := range res.Lost {
				fmt.Fprintf(env.Stdout, "Node %d was left behind: it joins again, empty, when it comes back.\n", n)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask: the other voters are off")
	cmd.Flags().StringVar(&cause, "cause", "", "why, for the history")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return Manual(cmd, exitPlain, "cluster-witness(1)", "cluster-rejoin(1)")
}

// confirm lets the operator say that the other voters are off.
func confirm(env *Env, s *api.ClusterStatus) error {
	f, ok := env.Stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return Usagef("stdin is not a terminal, so nobody can be asked: make sure that the other voters are off, then give --yes")
	}
	var voters []string
	for _, n := range s.Nodes {
		if n.Node != s.Self && (n.Role == api.RoleVoter || n.Role == api.RoleWitness) {
			voters = append(voters, fmt.Sprintf("%s (%s)", n.Name, n.Addr))
		}
	}
	fmt.Fprintf(env.Stderr, "Node %d becomes the only voter, at transition %d.\nVoters left behind: %s.\nAre they switched off or cut off? Type yes: ",
		s.Self, s.Transition, orDash(strings.Join(voters, ", ")))
	line, err := bufio.NewReader(f).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "yes" {
		return fmt.Errorf("nothing was changed")
	}
	return nil
}

func newHistory(env *Env) *cobra.Command {
	var params api.HistoryParams
	var node string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "history [-n COUNT] [--node NODE]",
		Short: "list the transitions of the cluster, the latest last",
		Long: `history lists what changed in the membership: each change has a number that is
the same on every node, the time by the clock of the init node, and a cause.
The cluster keeps the last 1,024.`,
		Example: `  cluster history
  cluster history -n 0 --node 2    all of node 2`,
		Args: Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if params.Limit < 0 {
				return Usagef("-n %d: a count is not negative", params.Limit)
			}
			if node != "" {
				n, err := nodeArg(cmd.Context(), env, node)
				if err != nil {
					return err
				}
				params.Node = n
			}
			res, err := Call[api.HistoryReply](cmd.Context(), env, api.MethodClusterHistory, params)
			if err != nil {
				return err
			}
			if asJSON {
				return PrintJSON(env.Stdout, res)
			}
			tw := newTable(env.Stdout)
			fmt.Fprintln(tw, "TRANSITION\tTIME\tNODE\tCHANGE\tCAUSE")
			for _, t := range res.Transitions {
				fmt.Fprintf(tw, "%d\t%s\t%d\t%s\t%s\n", t.Epoch, stamp(t.Time), t.Node, change(t), orDash(t.Cause))
			}
			return tw.Flush()
		},
	}
	cmd.Flags().IntVarP(&params.Limit, "count", "n", 20, "the latest `COUNT`; 0 is all that are kept")
	cmd.Flags().StringVar(&node, "node", "", "only of this `NODE`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print them as JSON")
	return Manual(cmd, exitPlain, "cluster-events(1)")
}

// change says in words what a transition was.
func change(t api.Transition) string {
	if t.To == "" {
		return fmt.Sprintf("takes init, term %d", t.Term)
	}
	return fmt.Sprintf("%s -> %s", t.From, t.To)
}

func newEvents(env *Env) *cobra.Command {
	var after uint64
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "events [--after TRANSITION]",
		Short: "follow the transitions of the cluster as they happen",
		Long: `events prints a line for each transition, and when this node loses or gets back
its lease, until it is interrupted. When the daemon of this node restarts, events
ends with status 1; --after the last number continues without a gap.`,
		Example: `  cluster events
  cluster events --after 17 --json | while read -r event; do …; done`,
		Args: Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return Watch(cmd.Context(), env, api.MethodClusterWatch, api.WatchParams{After: id.Epoch(after)}, func(e api.ClusterEvent) error {
				if asJSON {
					return printLine(env.Stdout, e)
				}
				return printEvent(env, e)
			})
		},
	}
	cmd.Flags().Uint64Var(&after, "after", 0, "start behind this transition (default: from now on)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print each as one line of JSON")
	return Manual(cmd, exitPlain, "cluster-history(1)")
}

func printEvent(env *Env, e api.ClusterEvent) error {
	if e.Missed {
		fmt.Fprintln(env.Stderr, "cluster events: some transitions before the next line are no longer kept")
	}
	var err error
	switch {
	case e.Transition != nil:
		t := e.Transition
		_, err = fmt.Fprintf(env.Stdout, "%s %d node %d %s: %s\n", stamp(t.Time), t.Epoch, t.Node, change(*t), orDash(t.Cause))
	case e.Serving != nil && e.Serving.Serving:
		_, err = fmt.Fprintf(env.Stdout, "%s - this node serves\n", stamp(e.Serving.Time))
	case e.Serving != nil:
		_, err = fmt.Fprintf(env.Stdout, "%s - this node is fenced: %s\n", stamp(e.Serving.Time), e.Serving.Cause)
	}
	return err
}

// shutdownTime reads WHEN of clusternode_shutdown.
func shutdownTime(when string, now time.Time) (time.Duration, error) {
	if when == "now" {
		return 0, nil
	}
	if minutes, ok := strings.CutPrefix(when, "+"); ok {
		d, err := time.ParseDuration(minutes + "m")
		if err != nil || strings.Trim(minutes, "0123456789") != "" || d > api.MaxShutdownDelay {
			return 0, Usagef("%q: write +MINUTES, at most +%d", when, api.MaxShutdownDelay/time.Minute)
		}
		return d, nil
	}
	t, err := time.ParseInLocation("15:04", when, now.Location())
	if err != nil {
		return 0, Usagef("%q is no time: write now, +MINUTES or HH:MM", when)
	}
	at := time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), 0, 0, now.Location())
	if !at.After(now) {
		at = at.AddDate(0, 0, 1)
	}
	return at.Sub(now), nil
}
