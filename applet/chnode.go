package applet

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"ssi/internal/api"
)

func newChNode(env *Env, name string) *cobra.Command {
	var macs string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   name + " MACHINE [--mac MAC[,MAC…]] [--node N] [--name NAME] …",
		Short: "change what the cluster knows of a machine",
		Long: name + ` changes a machine of the table (clustertab): what is not given stays as it is,
and an empty value is the default. It counts from its next boot. The number and
the first MAC address stay while its node is in the cluster.

MACHINE is a node number, a name or a MAC address. Only root may change it.`,
		Example: `  ` + name + ` 3 --name db1 --address 10.0.0.3
  ` + name + ` db1 --mac 52:54:00:77:00:09        its network card was replaced
  ` + name + ` db1 --args ""`,
		Args:              Args(1, 1),
		ValidArgsFunction: completeMachines(env),
	}
	flags := addMachineFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		change, err := flags.change()
		if err != nil {
			return err
		}
		if cmd.Flags().Changed("mac") {
			change.MACs = strings.Split(macs, ",")
		} else if !flags.any() {
			return Usagef("nothing is to be changed: give --mac, --node, --name, --class, --arch, --address, --boot or --args")
		}
		res, err := Call[api.MachineReply](cmd.Context(), env, api.MethodMachineChange, api.MachineChangeParams{Machine: args[0], Change: change})
		if err != nil {
			return err
		}
		if asJSON {
			return PrintJSON(env.Stdout, res)
		}
		m := res.Machine
		_, err = fmt.Fprintf(env.Stdout, "Changed: node %d, %s (%s).\n", m.Node, m.Name, strings.Join(m.MACs, ","))
		return err
	}
	cmd.Flags().StringVar(&macs, "mac", "", "its `MAC` addresses, all of them, with commas")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the machine as JSON")
	return Manual(cmd, exitPlain, "clustertab(1)", "addnode(1)", "rmnode(1)")
}
