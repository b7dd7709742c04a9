package applet

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ssi/internal/api"
	"ssi/internal/id"
)

func newCluster(env *Env) *cobra.Command {
	var verbose, keys, asJSON bool
	cmd := &cobra.Command{
		Use:   "cluster [-v | -V [NODE…] | --json]",
		Short: "show and manage the cluster",
		Long: `Without a command, cluster prints one line for each node: its number (a star
marks the node you are on), name, state, whether it holds init or may hold it,
what it is for the consensus, its load, its address and how long it has been in
this state.

States, in the order of a node's life: COMINGUP (joined, not ready yet), UP,
SHUTDOWN (takes no new work), GOINGDOWN (leaves in order), KCLEANUP and UCLEANUP
(gone; its traces are removed, then the hooks of nodedown.d run), DOWN. A number
that was never used is NEVERUP.

With -v, a table has the network links of the nodes: those that are configured or
that the nodes talk over, members of bonds, their speed, frames with errors, how
often they lost their carrier, and what they wait for. Another has how machines
whose init is ssi started: the phases that took longest, and those that failed.

The answer is what this node knows. A node that lost contact says so on stderr;
what it shows is then old.`,
		Example: `  cluster              a line for each node
  cluster -v           with causes, clocks, links, boots, and the cluster itself
  cluster -V 2         node 2 as "key: value" lines
  cluster --json       everything, for programs
  cluster events       follow the cluster`,
		Args: func(cmd *cobra.Command, args []string) error {
			if keys {
				return nil
			}
			return Args(0, 0)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if keys {
				return printKeys(cmd, env, args)
			}
			s, err := MeasuredStatus(cmd.Context(), env)
			if err != nil {
				return err
			}
			if asJSON {
				return PrintJSON(env.Stdout, s)
			}
			warn(env, s)
			if verbose {
				return printVerbose(env, s)
			}
			return printNodes(env.Stdout, s, env.Now())
		},
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "also the cluster itself, causes, phases, clocks, network links, and how machines boot")
	cmd.Flags().BoolVarP(&keys, "keys", "V", false, "\"key: value\" lines of the nodes given, or of all")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print everything as JSON")
	exclusive(cmd, "verbose", "keys", "json")
	cmd.AddCommand(
		newInit(env), newToken(env), newJoin(env), newWitness(env), newRejoin(env),
		newRevoke(env), newForce(env), newHistory(env), newEvents(env))
	return Manual(cmd, exitPlain, "clusternode_getstate(1)", "clreg(1)", "loads(1)", "ssi-lab(1)")
}

// warn says what makes the answer of this node doubtful.
func warn(env *Env, s *api.ClusterStatus) {
	if !s.Serving {
		fmt.Fprintf(env.Stderr, "cluster: node %d is fenced: %s; what it shows may be old\n", s.Self, s.Cause)
	}
	if s.Advice != "" {
		fmt.Fprintf(env.Stderr, "cluster: %s\n", s.Advice)
	}
}

func number(s *api.ClusterStatus, n id.Node) string {
	if n == s.Self {
		return n.String() + " *"
	}
	return n.String()
}

func initText(n api.NodeInfo) string {
	switch {
	case n.Init:
		return "init"
	case n.Capable:
		return "capable"
	}
	return "-"
}

func loadText(n api.NodeInfo) string {
	if n.Load == nil {
		return "-"
	}
	return strconv.Itoa(*n.Load)
}

// roleText is what a node is for the consensus; one that is DOWN is nothing.
func roleText(n api.NodeInfo) string {
	if n.State == api.Down {
		return "-"
	}
	return orDash(string(n.Role))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func printNodes(w io.Writer, s *api.ClusterStatus, now time.Time) error {
	tw := newTable(w)
	fmt.Fprintln(tw, "NODE\tNAME\tSTATE\tINIT\tROLE\tLOAD\tADDRESS\tSINCE")
	for _, n := range s.Nodes {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", number(s, n.Node), n.Name, n.State,
			initText(n), roleText(n), loadText(n), n.Addr, age(now.Sub(n.Since)))
	}
	return tw.Flush()
}

func printVerbose(env *Env, s *api.ClusterStatus) error {
	tw := newTable(env.Stdout)
	fmt.Fprintf(tw, "cluster:\t%s (%s)\n", s.Name, s.ID)
	fmt.Fprintf(tw, "this node:\t%d, %s\n", s.Self, serving(s))
	fmt.Fprintf(tw, "init:\t%s\n", initHolder(s))
	fmt.Fprintf(tw, "quorum:\t%s\n", quorum(s))
	fmt.Fprintf(tw, "transition:\t%d\n", s.Transition)
	fmt.Fprintf(tw, "profile:\t%s\n", s.Profile)
	fmt.Fprintf(tw, "PIDs:\t%d a node%s\n", 1<<s.PIDShift, strays(s))
	fmt.Fprintf(tw, "time:\t%s\n", timeText(s.Time))
	for _, m := range s.Booting {
		fmt.Fprintf(tw, "booting:\t%s\n", bootingText(m, env.Now()))
	}
	fmt.Fprintln(tw)
	if err := tw.Flush(); err != nil {
		return err
	}
	if err := printNodes(env.Stdout, s, env.Now()); err != nil {
		return err
	}
	fmt.Fprintln(env.Stdout)
	fmt.Fprintln(tw, "NODE\tTRANSITION\tAT\tCLOCK\tCLASSES\tCAUSE")
	for _, n := range s.Nodes {
		cause := n.Cause
		if n.Phase != "" {
			cause += " (" + n.Phase + ")"
		}
		fmt.Fprintf(tw, "%d\t%d\t%s\t%s\t%s\t%s\n", n.Node, n.Transition, stamp(n.Since), clockText(n), orDash(strings.Join(n.Classes, ",")), orDash(cause))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if err := printLinks(env.Stdout, s, env.Now()); err != nil {
		return err
	}
	return printBoots(env.Stdout, s)
}

func strays(s *api.ClusterStatus) string {
	if s.Strays == 0 {
		return ""
	}
	return fmt.Sprintf("; %d times this one gave out others", s.Strays)
}

func serving(s *api.ClusterStatus) string {
	if s.Serving {
		return "serving"
	}
	return "fenced: " + s.Cause
}

func quorum(s *api.ClusterStatus) string {
	if s.Quorum {
		return "yes"
	}
	return "no: the cluster cannot decide now"
}

func initHolder(s *api.ClusterStatus) string {
	if s.InitNode == 0 {
		return "none now"
	}
	return fmt.Sprintf("node %d, term %d", s.InitNode, s.InitTerm)
}

// clockText is how far the clock of a node is from ours.
func clockText(n api.NodeInfo) string {
	if n.ClockOffset == nil {
		return "-"
	}
	tenths := n.ClockOffset.Round(100*time.Microsecond) / (100 * time.Microsecond) // an integer, so never -0.0
	return fmt.Sprintf("%+.1fms", float64(tenths)/10)
}

// printKeys prints nodes in the form of OpenSSI's `cluster -V`.
func printKeys(cmd *cobra.Command, env *Env, args []string) error {
	s, err := MeasuredStatus(cmd.Context(), env)
	if err != nil {
		return err
	}
	warn(env, s)
	var nodes []id.Node
	for _, arg := range args {
		n, err := nodeArg(cmd.Context(), env, arg)
		if err != nil {
			return err
		}
		nodes = append(nodes, n)
	}
	if len(args) == 0 {
		for _, n := range s.Nodes {
			nodes = append(nodes, n.Node)
		}
	}
	for _, n := range nodes {
		if err := printNodeKeys(cmd, env, s, n); err != nil {
			return err
		}
	}
	return nil
}

func printNodeKeys(cmd *cobra.Command, env *Env, s *api.ClusterStatus, num id.Node) error {
	n, ok := s.Find(num)
	if !ok {
		n = api.NodeInfo{Node: num, State: api.NeverUp}
	}
	h, err := Call[api.HistoryReply](cmd.Context(), env, api.MethodClusterHistory, api.HistoryParams{Node: num})
	if err != nil {
		return err
	}
	previous, first := api.NeverUp, (*api.Transition)(nil)
	for i, t := range h.Transitions {
		if t.To == "" {
			continue
		}
		if first == nil {
			first = &h.Transitions[i]
		}
		previous = t.From
	}
	line := func(key, format string, args ...any) {
		fmt.Fprintf(env.Stdout, "\t%s: %s\n", key, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(env.Stdout, "Node %d:\n", num)
	line("State", "%s", n.State)
	if !ok {
		return nil
	}
	line("Previous state", "%s", previous)
	line("Reason for last transition", "%s", orDash(n.Cause))
	line("Last transition ID", "%d", n.Transition)
	line("Last transition time", "%s", stamp(n.Since))
	if first != nil {
		line("First transition ID", "%d", first.Epoch)
		line("First transition time", "%s", stamp(first.Time))
	}
	line("Name", "%s", n.Name)
	line("Address", "%s", n.Addr)
	if len(n.Others) > 0 {
		line("Other addresses", "%s", strings.Join(n.Others, " "))
	}
	line("Init node", "%s", initText(n))
	line("Role", "%s", roleText(n))
	line("Incarnation", "%016x", uint64(n.Incarnation))
	line("Load", "%s", loadText(n))
	line("Clock offset", "%s", clockText(n))
	line("Classes", "%s", orDash(strings.Join(n.Classes, " ")))
	line("Phase", "%s", orDash(n.Phase))
	return nil
}
