package applet

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"ssi/internal/api"
)

// newNode is `ssi node approve` and so on. Without arguments `ssi node` is a role,
// the daemon: see Main.
func newNode(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node COMMAND",
		Short: "approve or deny machines that want to join",
		Long: `An unknown machine that boots from the network waits, with a line on its console,
until an operator approves it. Without a command, ssi node is the node daemon,
which the system starts.`,
		Example: `  ssi node ls
  ssi node approve 52:54:00:77:00:05
  ssi node deny 52:54:00:77:00:06`,
		Args: needSubcommand,
		RunE: func(*cobra.Command, []string) error { return nil }, // never: needSubcommand refuses
	}
	cmd.AddCommand(nodeApprove(env), nodeDeny(env), nodeList(env))
	return Manual(cmd, exitPlain, "addnode(1)", "clustertab(1)", "rmnode(1)")
}

func nodeApprove(env *Env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "approve MAC [--node N] [--name NAME] …",
		Short: "let a machine in that waits or was denied",
		Long: `approve adds a machine that waits to the table (clustertab): it goes on at once
and joins. So does one that was denied, the next time it boots. Compare the MAC
address with that on its console. Only root may approve.`,
		Example: `  ssi node approve 52:54:00:77:00:05
  ssi node approve 52:54:00:77:00:05 --node 5 --name db2`,
		Args:              Args(1, 1),
		ValidArgsFunction: completeMachines(env),
	}
	flags := addMachineFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		change, err := flags.change()
		if err != nil {
			return err
		}
		res, err := Call[api.MachineReply](cmd.Context(), env, api.MethodMachineApprove, api.MachineApproveParams{Machine: args[0], Change: change})
		if err != nil {
			return err
		}
		if asJSON {
			return PrintJSON(env.Stdout, res)
		}
		m := res.Machine
		_, err = fmt.Fprintf(env.Stdout, "%s is approved: node %d, %s.\n", m.MACs[0], m.Node, m.Name)
		return err
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the machine as JSON")
	return Manual(cmd, exitPlain, "addnode(1)", "clustertab(1)", "rmnode(1)")
}

func nodeDeny(env *Env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "deny MAC",
		Short: "refuse a machine whenever it asks",
		Long: `deny refuses a machine that waits for approval, or one that has not asked yet. It
is told so on its console. rmnode forgets that, approve takes it back. Only root
may deny.`,
		Example: `  ssi node deny 52:54:00:77:00:06`,
		Args:    Args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			res, err := Call[api.MachineReply](cmd.Context(), env, api.MethodMachineDeny, api.MachineDenyParams{Machine: args[0]})
			if err != nil {
				return err
			}
			if asJSON {
				return PrintJSON(env.Stdout, res)
			}
			_, err = fmt.Fprintf(env.Stdout, "%s is denied.\n", res.Machine.MACs[0])
			return err
		},
		ValidArgsFunction: completeMachines(env),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the machine as JSON")
	return Manual(cmd, exitPlain, "ssi-node(1)", "rmnode(1)", "clustertab(1)")
}

func nodeList(env *Env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "list the machines that wait for approval or are denied",
		Long: `ls lists the machines that asked to boot and are in no table, and those that were
denied. clustertab lists all.`,
		Example: `  ssi node ls`,
		Args:    Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			res, err := Call[api.MachineListReply](cmd.Context(), env, api.MethodMachineList, api.MachineListParams{})
			if err != nil {
				return err
			}
			res.Machines = slices.DeleteFunc(res.Machines, func(m api.MachineInfo) bool {
				return m.State != api.MachinePending && m.State != api.MachineDenied
			})
			if asJSON {
				return PrintJSON(env.Stdout, res)
			}
			tw := newTable(env.Stdout)
			fmt.Fprintln(tw, "MAC\tSTATE\tARCH\tADDRESS\tFIRST\tSEEN\tPHASE")
			for _, m := range res.Machines {
				seen := "-"
				if !m.LastSeen.IsZero() {
					seen = age(env.Now().Sub(m.LastSeen))
				}
				fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", strings.Join(m.MACs, ","), m.State, orDash(m.Arch), orDash(m.IP),
					stamp(m.FirstSeen), seen, orDash(m.Phase))
			}
			return tw.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print them as JSON")
	return Manual(cmd, exitPlain, "ssi-node(1)", "clustertab(1)")
}
