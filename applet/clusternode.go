package applet

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ssi/internal/api"
	"ssi/internal/id"
)

func newClusterName(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "clustername",
		Short:   "print the name of the cluster",
		Long:    `clustername prints the name that the cluster got from cluster init.`,
		Example: `  clustername`,
		Args:    Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := Status(cmd.Context(), env)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(env.Stdout, s.Name)
			return err
		},
	}
	return Manual(cmd, exitPlain, "cluster(1)", "clusternode_num(1)")
}

func newNodeNum(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "clusternode_num",
		Short:   "print the number of this node",
		Long:    fmt.Sprintf(`clusternode_num prints the number, 1 to %d, of the node it runs on.`, id.MaxNode),
		Example: `  echo "this is node $(clusternode_num) of $(clustername)"`,
		Args:    Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := Status(cmd.Context(), env)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(env.Stdout, s.Self)
			return err
		},
	}
	return Manual(cmd, exitPlain, "cluster(1)", "onnode(1)")
}

// oneNode finds the node that the only argument names; without one, this node.
// A number never used is a node in state NEVERUP.
func oneNode(cmd *cobra.Command, env *Env, args []string) (api.NodeInfo, error) {
	var num id.Node
	if len(args) > 0 {
		var err error
		if num, err = nodeArg(cmd.Context(), env, args[0]); err != nil {
			return api.NodeInfo{}, err
		}
	}
	s, err := Status(cmd.Context(), env)
	if err != nil {
		return api.NodeInfo{}, err
	}
	if num == 0 {
		num = s.Self
	}
	n, ok := s.Find(num)
	if !ok {
		n = api.NodeInfo{Node: num, State: api.NeverUp}
	}
	return n, nil
}

func newGetState(env *Env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "clusternode_getstate [NODE]",
		Short: "print the state of a node",
		Long: `clusternode_getstate prints the state of a node, or of this one: NEVERUP,
COMINGUP, UP, SHUTDOWN, GOINGDOWN, KCLEANUP, UCLEANUP or DOWN; cluster(1)
explains them. A number that was never used is NEVERUP.`,
		Example: `  clusternode_getstate 2`,
		Args:    Args(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := oneNode(cmd, env, args)
			if err != nil {
				return err
			}
			if asJSON {
				return PrintJSON(env.Stdout, n)
			}
			_, err = fmt.Fprintln(env.Stdout, n.State)
			return err
		},
		ValidArgsFunction: completeNodes(env, false),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print all that is known of the node as JSON")
	return Manual(cmd, exitPlain, "cluster(1)", "clusternode_setstate(1)", "clusternode_avail(1)")
}

func newAvail(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "clusternode_avail [NODE]",
		Short: "tell by the exit status whether a node is available",
		Long: `clusternode_avail prints nothing; its exit status says whether the node, or this
one, is UP.`,
		Example: `  if clusternode_avail 2; then onnode 2 make; else make; fi`,
		Args:    Args(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := oneNode(cmd, env, args)
			if err != nil {
				return &failed{status: StatusUsage, err: err}
			}
			if n.State != api.Up {
				return StatusError(1)
			}
			return nil
		},
		ValidArgsFunction: completeNodes(env, false),
	}
	return Manual(cmd, "0 the node is UP\n1 it is not\n2 it could not be found out, or the command line makes no sense", "clusternode_getstate(1)")
}

func newSetState(env *Env) *cobra.Command {
	var cause string
	cmd := &cobra.Command{
		Use:   "clusternode_setstate NODE STATE",
		Short: "change the state of a node",
		Long: `clusternode_setstate makes a transition by hand. The transitions allowed are
  COMINGUP -> UP
  UP -> SHUTDOWN or GOINGDOWN     drain it, or let it leave
  SHUTDOWN -> UP or GOINGDOWN
  UCLEANUP -> DOWN
  COMINGUP, UP, SHUTDOWN, GOINGDOWN -> KCLEANUP   declare it dead
A node declared dead that is alive is refused by the others until it has joined
again. Only root may do it.`,
		Example: `  clusternode_setstate 2 SHUTDOWN    no new work for node 2
  clusternode_setstate 2 UP          take it back`,
		Args: Args(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			state := api.State(strings.ToUpper(args[1]))
			if !slices.Contains(api.States(), state) {
				return Usagef("%q is no state; see clusternode_setstate --help", args[1])
			}
			n, err := nodeArg(cmd.Context(), env, args[0])
			if err != nil {
				return err
			}
			_, err = Call[api.SetStateReply](cmd.Context(), env, api.MethodClusterSetState, api.SetStateParams{Node: n, State: state, Cause: cause})
			return err
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return []string{"UP", "SHUTDOWN", "GOINGDOWN", "KCLEANUP", "DOWN"}, cobra.ShellCompDirectiveNoFileComp
			}
			return completeNodes(env, false)(cmd, args, word)
		},
	}
	cmd.Flags().StringVar(&cause, "cause", "", "why, for the history")
	return Manual(cmd, exitPlain, "clusternode_getstate(1)", "clusternode_shutdown(1)")
}

func newShutdown(env *Env) *cobra.Command {
	var halt, reboot, cancel bool
	var node string
	cmd := &cobra.Command{
		Use:   "clusternode_shutdown -h|-r|-c [-N NODE] [WHEN [MESSAGE…]]",
		Short: "halt or reboot a node in order",
		Long: `clusternode_shutdown lets a node, or this one, leave the cluster in order and
then powers it off (-h) or reboots it (-r). WHEN is now (the default), +MINUTES
or HH:MM by the clock of this node. Until then the node is in SHUTDOWN: it takes
no new work. MESSAGE goes to the history as the cause. -c cancels a shutdown that
waits for its time. Only root may do it.

-h is the halt of shutdown(8) here; --help shows this text.`,
		Example: `  clusternode_shutdown -r -N 2 now
  clusternode_shutdown -h -N 3 +10 new power supply
  clusternode_shutdown -c -N 3`,
		Args: Args(0, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			params := api.ShutdownParams{}
			switch {
			case halt:
				params.Action = api.ActionPowerOff
			case reboot:
				params.Action = api.ActionReboot
			case cancel && len(args) == 0:
				params.Action = api.ActionCancel
			case cancel:
				return Usagef("-c takes no time")
			default:
				return Usagef("give -h (halt), -r (reboot) or -c (cancel)")
			}
			if len(args) > 0 {
				delay, err := shutdownTime(args[0], env.Now())
				if err != nil {
					return err
				}
				params.Delay, params.Message = delay, strings.Join(args[1:], " ")
			}
			if node != "" {
				n, err := nodeArg(cmd.Context(), env, node)
				if err != nil {
					return err
				}
				params.Node = n
			}
			res, err := Call[api.ShutdownReply](cmd.Context(), env, api.MethodClusterShutdown, params)
			if err != nil {
				return err
			}
			switch {
			case cancel:
				_, err = fmt.Fprintf(env.Stdout, "The shutdown of node %d is cancelled.\n", res.Node)
			case params.Delay > 0:
				_, err = fmt.Fprintf(env.Stdout, "Node %d: %s at %s; `clusternode_shutdown -c -N %d` cancels.\n", res.Node, params.Action, res.At.In(time.Local).Format("2006-01-02 15:04"), res.Node)
			default:
				_, err = fmt.Fprintf(env.Stdout, "Node %d: %s now.\n", res.Node, params.Action)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.BoolVarP(&halt, "halt", "h", false, "power the node off")
	f.BoolVarP(&reboot, "reboot", "r", false, "reboot the node")
	f.BoolVarP(&cancel, "cancel", "c", false, "cancel a shutdown that waits for its time")
	f.StringVarP(&node, "node", "N", "", "the `NODE` (default: this one)")
	f.Bool("help", false, "help for clusternode_shutdown")
	exclusive(cmd, "halt", "reboot", "cancel")
	_ = cmd.RegisterFlagCompletionFunc("node", completeNodes(env, false))
	return Manual(cmd, exitPlain, "clusternode_setstate(1)", "cluster(1)")
}
