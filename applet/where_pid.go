package applet

import (
	"fmt"

	"github.com/spf13/cobra"

	"ssi/internal/api"
)

func newWherePID(env *Env) *cobra.Command {
	var node string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "where_pid PID",
		Short: "print the node that runs a process",
		Long: `where_pid prints the number of the node that runs the process, if it exists.
Process IDs below 32768 are local to each node and mean this one, or that of
--node.`,
		Example: `  where_pid 70001`,
		Args:    Args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			pids, err := parsePIDs(args[0])
			if err != nil || len(pids) != 1 {
				return Usagef("%q is not a process ID", args[0])
			}
			n, err := optionalNode(cmd.Context(), env, node)
			if err != nil {
				return err
			}
			place, err := Call[api.ProcessPlace](cmd.Context(), env, api.ProcessWhere, api.WhereProcess{PID: pids[0], Node: n})
			if err != nil {
				return err
			}
			if asJSON {
				return PrintJSON(env.Stdout, place)
			}
			_, err = fmt.Fprintln(env.Stdout, place.Node)
			return err
		},
	}
	cmd.Flags().StringVar(&node, "node", "", "look at this `NODE`, by number or name")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return Manual(cmd, "0 the process exists\n1 it does not exist, or its node does not answer\n2 the command line makes no sense", "ps(1)", "kill(1)", "onnode(1)")
}
