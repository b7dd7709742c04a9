package applet

import (
	"fmt"

	"github.com/spf13/cobra"

	"ssi/internal/api"
)

func newLoads(env *Env) *cobra.Command {
	var node, timeout string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "loads [-n NODE]",
		Short: "print the loads of the nodes",
		Long: `loads prints the load of each node that is UP, a line "NODE: VALUE" each. The
value is 100 × tasks / CPUs, where tasks is the average number of runnable tasks
over the last minute or, if that is more, over the last five seconds: 100 means
that every CPU has one task to run, 0 that the node is idle. fast, fastnode and
"onnode best" take the node with the least.`,
		Example: `  loads
  loads -n 2
  loads --json`,
		Args: Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := optionalNode(cmd.Context(), env, node)
			if err != nil {
				return err
			}
			req := api.ListLoads{Node: n, Local: env.LocalView()}
			if timeout != "" {
				if req.Timeout, err = parseMillis(timeout); err != nil {
					return err
				}
			}
			loads, err := Call[api.Loads](cmd.Context(), env, api.ProcessLoads, req)
			if err != nil {
				return err
			}
			if asJSON {
				err = PrintJSON(env.Stdout, loads)
			} else {
				err = printLoads(env, loads)
			}
			if err != nil {
				return err
			}
			return loadErrors(env, loads)
		},
	}
	cmd.Flags().StringVarP(&node, "node", "n", "", "only this `NODE`, by number or name")
	cmd.Flags().StringVar(&timeout, "timeout", "", "wait so long for each node, a `DURATION` (default 2s)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print all that is known as JSON")
	return Manual(cmd, "0 success\n1 failure, or a node did not answer; stderr says which and why\n2 the command line makes no sense", "fast(1)", "fastnode(1)", "onnode(1)", "top(1)")
}

func printLoads(env *Env, loads api.Loads) error {
	for _, l := range loads.Loads {
		if l.Error != "" {
			continue
		}
		if _, err := fmt.Fprintf(env.Stdout, "%d: %d\n", l.Node, l.Value); err != nil {
			return err
		}
	}
	return nil
}

func loadErrors(env *Env, loads api.Loads) error {
	failed := false
	for _, l := range loads.Loads {
		if l.Error != "" {
			failed = true
			fmt.Fprintf(env.Stderr, "loads: %s\n", l.Error)
		}
	}
	if failed {
		return StatusError(StatusFailure)
	}
	return nil
}
