package applet

import (
	"fmt"

	"github.com/spf13/cobra"

	"ssi/internal/api"
)

func newRmNode(env *Env, name string) *cobra.Command {
	params := api.MachineRemoveParams{}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   name + " MACHINE [--force] [--cause TEXT]",
		Short: "forget a machine and revoke its certificates",
		Long: name + ` removes a machine from the table (clustertab) and revokes the certificates of
its node, as cluster revoke does: it cannot come back with them. When it is
switched on again it waits for approval, as any unknown machine. A machine whose
node is in the cluster is refused; --force takes it down.

MACHINE is a node number, a name or a MAC address. Only root may remove it.`,
		Example: `  ` + name + ` 3
  ` + name + ` 52:54:00:77:00:03 --force --cause "stolen"`,
		Args: Args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			params.Machine = args[0]
			res, err := Call[api.MachineRemoveReply](cmd.Context(), env, api.MethodMachineRemove, params)
			if err != nil {
				return err
			}
			if asJSON {
				return PrintJSON(env.Stdout, res)
			}
			m, what := res.Machine, ""
			if m.Node != 0 {
				what = fmt.Sprintf(" (node %d, %s)", m.Node, m.Name)
			}
			if res.Revoked {
				what += "; its certificates are revoked"
			}
			_, err = fmt.Fprintf(env.Stdout, "%s is removed%s.\n", m.MACs[0], what)
			return err
		},
		ValidArgsFunction: completeMachines(env),
	}
	cmd.Flags().BoolVar(&params.Force, "force", false, "also while its node is in the cluster")
	cmd.Flags().StringVar(&params.Cause, "cause", "", "why, for the history")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return Manual(cmd, exitPlain, "clustertab(1)", "addnode(1)", "cluster-revoke(1)", "clusternode_shutdown(1)")
}
