package applet

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ssi/internal/api"
	"ssi/internal/id"
	"ssi/netboot/machine"
)

// maxMachineList is the size limit of a list of machines in bytes.
const maxMachineList = 1 << 20

// machineFlags are the options that say what a machine is.
type machineFlags struct {
	flags                                  *pflag.FlagSet
	node                                   uint16
	name, class, arch, address, boot, args string
}

func addMachineFlags(cmd *cobra.Command) *machineFlags {
	m := &machineFlags{flags: cmd.Flags()}
	f := m.flags
	f.Uint16Var(&m.node, "node", 0, "its node `NUMBER` (default: the lowest free one)")
	f.StringVar(&m.name, "name", "", "its `NAME` (default: nodeN)")
	f.StringVar(&m.class, "class", "", "the `CLASS` of its hardware: what its initramfs holds")
	f.StringVar(&m.arch, "arch", "", "its `ARCH`: amd64 or arm64 (default: as it says)")
	f.StringVar(&m.address, "address", "", "the `IPV4` address it gets (default: one of the pool)")
	f.StringVar(&m.boot, "boot", "", "how it boots: auto, ipxe, pxelinux, uki or http (default: auto)")
	f.StringVar(&m.args, "args", "", "`WORDS` to add to the command line of its kernel; everyone can read them")
	_ = cmd.RegisterFlagCompletionFunc("boot", cobra.FixedCompletions([]string{"auto", "ipxe", "pxelinux", "uki", "http"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("arch", cobra.FixedCompletions(machine.Archs(), cobra.ShellCompDirectiveNoFileComp))
	return m
}

// change is what was given on the command line.
func (m *machineFlags) change() (api.MachineChange, error) {
	var c api.MachineChange
	if m.flags.Changed("node") {
		n := id.Node(m.node)
		if !n.Valid() {
			return c, Usagef("--node %d: node numbers are 1 to %d", m.node, id.MaxNode)
		}
		c.Node = &n
	}
	for _, f := range []struct {
		flag  string
		value *string
		to    **string
	}{
		{"name", &m.name, &c.Name}, {"class", &m.class, &c.Class}, {"arch", &m.arch, &c.Arch},
		{"address", &m.address, &c.Address}, {"boot", &m.boot, &c.Boot}, {"args", &m.args, &c.Args},
	} {
		if m.flags.Changed(f.flag) {
			*f.to = f.value
		}
	}
	return c, nil
}

// any reports whether one of the options was given.
func (m *machineFlags) any() bool {
	return slices.ContainsFunc([]string{"node", "name", "class", "arch", "address", "boot", "args"}, m.flags.Changed)
}

// spec is the machine that the command line describes.
func (m *machineFlags) spec() (api.MachineSpec, error) {
	_, err := m.change() // checks the number
	return api.MachineSpec{Node: id.Node(m.node), Name: m.name, Class: m.class, Arch: m.arch, Address: m.address, Boot: m.boot, Args: m.args}, err
}

func newAddNode(env *Env, name string) *cobra.Command {
	var next, asJSON bool
	var count int
	var window time.Duration
	var list string
	cmd := &cobra.Command{
		Use:   name + " MAC[,MAC…] [--node N] [--name NAME] | --next [--count N] [--for DURATION] | --list FILE",
		Short: "let a machine boot from the network and join",
		Long: name + ` adds a machine to the table of those that the cluster boots
(clustertab). Switched on, it boots from the network and becomes a node.

A machine is named by the MAC address of the interface it boots from; its other
interfaces may follow behind commas. --next adds the next unknown machines that
ask, for as long as --for says: switch on nothing else meanwhile. --next
--count 0 ends that.

--list adds all machines of a file (- is stdin), or none if a line is wrong. A
line is: MAC[,MAC…] [node=N] [name=NAME] [class=CLASS] [arch=ARCH]
[address=IPV4] [boot=KIND] [args=…]; args takes the rest of its line, and
# begins a comment. Only root may add machines.`,
		Example: `  ` + name + ` 52:54:00:77:00:02
  ` + name + ` 52:54:00:77:00:03 --node 3 --name db1 --address 10.0.0.3
  ` + name + ` --next --count 4 --for 15m
  ` + name + ` --list rack7.txt`,
		Args: Args(0, 1),
	}
	flags := addMachineFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		spec, err := flags.spec()
		if err != nil {
			return err
		}
		given := 0
		for _, ok := range []bool{next, list != "", len(args) > 0} {
			if ok {
				given++
			}
		}
		switch {
		case given != 1:
			return Usagef("give a MAC address, --next or --list: one of them")
		case !next && (cmd.Flags().Changed("count") || cmd.Flags().Changed("for")):
			return Usagef("--count and --for go with --next")
		case next:
			return addNext(cmd, env, api.MachineNextParams{Count: count, For: window, Spec: spec}, asJSON)
		}
		specs := []api.MachineSpec{spec}
		if list != "" {
			if flags.any() {
				return Usagef("with --list, what a machine is stands in its line")
			}
			if specs, err = readMachineList(env, list); err != nil {
				return err
			}
		} else {
			specs[0].MACs = strings.Split(args[0], ",")
		}
		res, err := Call[api.MachineAddReply](cmd.Context(), env, api.MethodMachineAdd, api.MachineAddParams{Specs: specs})
		if err != nil {
			return err
		}
		if asJSON {
			return PrintJSON(env.Stdout, res)
		}
		for _, m := range res.Machines {
			fmt.Fprintf(env.Stdout, "%s is node %d, %s.\n", m.MACs[0], m.Node, m.Name)
		}
		return nil
	}
	f := cmd.Flags()
	f.BoolVar(&next, "next", false, "the next unknown machines that ask")
	f.IntVar(&count, "count", 1, "with --next: how `MANY`")
	f.DurationVar(&window, "for", 10*time.Minute, "with --next: how long, at most 24h")
	f.StringVar(&list, "list", "", "the machines of a `FILE`")
	f.BoolVar(&asJSON, "json", false, "print the result as JSON")
	return Manual(cmd, exitPlain, "clustertab(1)", "chnode(1)", "rmnode(1)", "ssi-node(1)")
}

func addNext(cmd *cobra.Command, env *Env, p api.MachineNextParams, asJSON bool) error {
	res, err := Call[api.MachineNext](cmd.Context(), env, api.MethodMachineNext, p)
	if err != nil {
		return err
	}
	switch {
	case asJSON:
		return PrintJSON(env.Stdout, res)
	case res.Left == 0:
		_, err = fmt.Fprintln(env.Stdout, "Unknown machines are not added; they wait for approval.")
	default:
		_, err = fmt.Fprintf(env.Stdout, "The next %d unknown machine(s) that ask are added, until %s.\n", res.Left, stamp(res.Until))
	}
	return err
}

func readMachineList(env *Env, path string) ([]api.MachineSpec, error) {
	in, from := env.Stdin, "stdin"
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in, from = f, path
	}
	text, err := io.ReadAll(io.LimitReader(in, maxMachineList+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	return machine.ParseList(from, string(text))
}
