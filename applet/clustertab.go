package applet

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ssi/internal/api"
)

func newClusterTab(env *Env) *cobra.Command {
	var asJSON, verbose bool
	cmd := &cobra.Command{
		Use:   "clustertab [-v]",
		Short: "list the machines that the cluster boots",
		Long: `clustertab lists the machines that the cluster knows: by node number, then those
without one. A machine is known (it may boot), booting (it was sent a kernel
lately), up (its node is in the cluster), pending (it asked, and waits for
approval: ssi node approve) or denied.

PHASE is how far its last boot came, and for how long it is there. -v adds what
a machine says about it, for example why it waits, and its kernel arguments.
A line that begins with ! is an alarm: another machine asked in its name.`,
		Example: `  clustertab
  clustertab -v
  clustertab --json`,
		Args: Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			res, err := Call[api.MachineListReply](cmd.Context(), env, api.MethodMachineList, api.MachineListParams{})
			if err != nil {
				return err
			}
			if asJSON {
				return PrintJSON(env.Stdout, res)
			}
			if err := printMachines(env.Stdout, res.Machines, env.Now(), verbose); err != nil {
				return err
			}
			if res.Next != nil {
				_, err = fmt.Fprintf(env.Stdout, "The next %d unknown machine(s) that ask are added, until %s.\n", res.Next.Left, stamp(res.Next.Until))
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "also what each machine says, and its arguments")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the table as JSON")
	return Manual(cmd, exitPlain, "addnode(1)", "chnode(1)", "rmnode(1)", "ssi-node(1)", "cluster(1)")
}

// printMachines prints the table, and below it the alarms.
func printMachines(w io.Writer, machines []api.MachineInfo, now time.Time, verbose bool) error {
	tw := newTable(w)
	head := "NODE\tNAME\tMAC\tSTATE\tCLASS\tARCH\tADDRESS\tBOOT\tPHASE\tSEEN"
	if verbose {
		head += "\tARGS\tSAYS"
	}
	fmt.Fprintln(tw, head)
	for _, m := range machines {
		node, seen, phase := "-", "-", orDash(m.Phase)
		if m.Node != 0 {
			node = m.Node.String()
		}
		if !m.LastSeen.IsZero() {
			seen = age(now.Sub(m.LastSeen))
		}
		if m.Phase != "" && m.State != api.MachineUp {
			phase = m.Phase + " " + age(now.Sub(m.PhaseSince))
		}
		address := m.Address
		if address == "" {
			address = m.IP
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s", node, orDash(m.Name), strings.Join(m.MACs, ","), m.State,
			orDash(m.Class), orDash(m.Arch), orDash(address), orDash(m.Boot), phase, seen)
		if verbose {
			fmt.Fprintf(tw, "\t%s\t%s", orDash(m.Args), orDash(m.Text))
		}
		fmt.Fprintln(tw)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, m := range machines {
		if m.Alarm != "" {
			if _, err := fmt.Fprintf(w, "! %s\n", m.Alarm); err != nil {
				return err
			}
		}
	}
	return nil
}

// completeMachines completes the names of machines, or their MACs.
func completeMachines(env *Env) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		res, err := Call[api.MachineListReply](cmd.Context(), env, api.MethodMachineList, api.MachineListParams{})
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var words []string
		for _, m := range res.Machines {
			if m.Name != "" {
				words = append(words, m.Name)
			} else {
				words = append(words, m.MACs[0])
			}
		}
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}
