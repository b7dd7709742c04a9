package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/netboot/initramfs"
)

// Env is what the commands know of the world.
type Env struct {
	In, Out, Err *os.File
	// Initramfs says what the root of a machine has beside drivers; for --vm.
	Initramfs func() initramfs.Config
	// Usage makes the error of a command line that makes no sense.
	Usage func(text string) error
	// Exit makes the error that ends the program with this status and says
	// nothing more.
	Exit func(status int) error
}

// commands is the state that the commands share.
type commands struct {
	env  Env
	name string // --name
}

// Command makes `ssi lab` with all of its verbs.
func Command(env Env) *cobra.Command {
	c := &commands{env: env}
	cmd := &cobra.Command{
		Use:   "lab COMMAND",
		Short: "a cluster of several nodes on this machine",
		Long: `lab makes a cluster on this machine: each node has its own process tree, network,
host name and disk, made of the kernel's namespaces, and runs ssi as its first
process. Nothing of the machine itself changes, and nothing stays when the lab
ends. It needs root.

The nodes are 1, 2, 3 …; node N has the address 10.85.0.N and the host name nodeN.
A node sees the files of this machine, but not its /tmp, /run and other mounts;
what it writes stays its own and is gone with the lab.

With --vm (of run and up) the nodes are emulated machines instead: node 1 founds the
cluster and boots the others over the network. The other commands are the same.`,
		Example: `  ssi lab run                            three nodes and a shell on the first
  ssi lab run -n 5 -- onall uname -n     a command on a cluster of five
  ssi lab run --vm -n 2                  the same with machines
  ssi lab up; ssi lab sh 2; ssi lab down`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return env.Usage(fmt.Sprintf("there is no command %q", args[0]))
			}
			return env.Usage("a command is missing")
		},
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	cmd.PersistentFlags().StringVar(&c.name, "name", DefaultName, "which lab: several can run side by side")
	cmd.AddCommand(c.run(), c.up(), c.down(), c.status(), c.sh(), c.exec(), c.logs(),
		c.machineOp("crash", "cut the power of a node", `crash ends a node as a power cut does: its network falls silent, then all of its
processes end at once. Its disk stays; start turns the node on again.`, (*Lab).Crash),
		c.machineOp("start", "turn on a node that is off", `start turns a node on again after crash, or after it powered itself off.`, (*Lab).StartNode),
		c.machineOp("pause", "freeze a node", `pause freezes every process of a node; to the others it looks dead, yet it does
not know that time passes. resume lets it go on.`, (*Lab).Pause),
		c.machineOp("resume", "let a paused node go on", `resume lets a paused node go on.`, (*Lab).Resume),
		c.cut(), c.heal(), c.delay(), c.loss(), c.add())
	return manual(cmd, exitPlain)
}

const (
	exitPlain = "0 success\n1 failure; stderr says what, why and what to do\n2 the command line makes no sense"
	exitRun   = "0 the program succeeded\nN the program's own exit status\n126 the program was found and could not be run\n127 the program was not found\n128+S the program was killed by signal S\n255 the node went off or was fenced meanwhile, or the lab could not start\n2 the command line makes no sense"
	exitExec  = "0 the program succeeded\nN the program's own exit status\n126 the program was found and could not be run\n127 the program was not found\n128+S the program was killed by signal S\n255 the node is off or fenced, or became so meanwhile, or there is no such lab\n2 the command line makes no sense"
)

// manual adds what the help says below the options.
func manual(cmd *cobra.Command, exit string) *cobra.Command {
	cmd.Annotations = map[string]string{"exit-status": exit, "see-also": "onnode(1) cluster(1)"}
	return cmd
}

// verb makes a command that uses a running lab.
func (c *commands) verb(use, short, long, example string, min, max int, f func(context.Context, *Lab, []string) error) *cobra.Command {
	return manual(&cobra.Command{
		Use: use, Short: short, Long: long, Example: example, Args: c.args(min, max),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
			defer stop()
			l, err := Attach(ctx, c.name)
			if err != nil {
				return plain(err)
			}
			defer l.Close()
			return plain(f(ctx, l, args))
		},
	}, exitPlain)
}

func (c *commands) machineOp(name, short, long string, op func(*Lab, context.Context, id.Node) error) *cobra.Command {
	return c.verb(name+" NODE", short, long, "  ssi lab "+name+" 2", 1, 1, func(ctx context.Context, l *Lab, args []string) error {
		n, err := c.node(args[0])
		if err != nil {
			return err
		}
		return op(l, ctx, n)
	})
}

func (c *commands) args(min, max int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < min {
			return c.env.Usage("arguments are missing; usage: " + cmd.UseLine())
		}
		if max >= 0 && len(args) > max {
			return c.env.Usage(fmt.Sprintf("argument %q is too much; usage: %s", args[max], cmd.UseLine()))
		}
		return nil
	}
}

// node reads a node's number, or its host name.
func (c *commands) node(arg string) (id.Node, error) {
	n, err := id.ParseNode(strings.TrimPrefix(arg, "node"))
	if err != nil {
		return 0, c.env.Usage(err.Error())
	}
	return n, nil
}

// plain is an error without the name of the package in front: the command's own
// name stands there already.
func plain(err error) error {
	if err == nil || !strings.HasPrefix(err.Error(), "lab: ") {
		return err
	}
	return &trimmed{err}
}

type trimmed struct{ err error }

func (t *trimmed) Error() string { return strings.TrimPrefix(t.err.Error(), "lab: ") }
func (t *trimmed) Unwrap() error { return t.err }

// bytesOf reads a size: digits and K, M or G for powers of 1024.
func (c *commands) bytesOf(text string) (int64, error) {
	shift := 0
	digits := strings.TrimSuffix(strings.ToUpper(text), "B")
	if n := len(digits); n > 0 {
		if i := strings.IndexByte("KMGT", digits[n-1]); i >= 0 {
			shift, digits = 10*(i+1), digits[:n-1]
		}
	}
	v, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || v <= 0 || v > 1<<(62-shift) {
		return 0, c.env.Usage(fmt.Sprintf("%q is no size: write 64M or 2G", text))
	}
	return v << shift, nil
}

func (c *commands) up() *cobra.Command {
	var s startFlags
	cmd := manual(&cobra.Command{
		Use:   "up [-n N] [--name NAME]",
		Short: "start a lab that stays until down",
		Long: `up starts a lab and returns when all of its nodes are UP. The lab stays until
down, or until the machine ends.`,
		Example: `  ssi lab up -n 5
  ssi lab up --name other --disk 64M`,
		Args: c.args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
			defer stop()
			o, err := s.options(c)
			if err != nil {
				return err
			}
			o.Detach = true
			start := time.Now()
			l, err := Start(ctx, o)
			if err != nil {
				return plain(err)
			}
			state := "up"
			if o.NoWait {
				state = "starting"
			}
			_, err = fmt.Fprintf(c.env.Out, "lab %q is %s: %d nodes in %.1f s; next: `ssi lab%s sh 1`, `ssi lab%s down`\n",
				l.Name, state, o.Nodes, time.Since(start).Seconds(), nameFlag(c.name), nameFlag(c.name))
			return err
		},
	}, exitPlain)
	s.add(cmd)
	cmd.Flags().BoolVar(&s.noWait, "no-wait", false, "return before the nodes are UP")
	return cmd
}

func (c *commands) down() *cobra.Command {
	var all bool
	cmd := manual(&cobra.Command{
		Use:   "down [--name NAME | --all]",
		Short: "end a lab",
		Long: `down ends a lab with all of its nodes and returns when nothing is left of it. It
also removes what is left of labs that were killed.`,
		Example: `  ssi lab down
  ssi lab down --all`,
		Args: c.args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := precheck(); err != nil {
				return plain(err)
			}
			swept, err := Sweep()
			if err != nil {
				return plain(err)
			}
			for _, name := range swept {
				fmt.Fprintf(c.env.Out, "removed what was left of lab %q\n", name)
			}
			list := []string{c.name}
			if all {
				if list, err = List(cmd.Context()); err != nil {
					return plain(err)
				}
			} else if len(swept) > 0 && contains(swept, c.name) {
				return nil
			}
			for _, name := range list {
				l, err := Attach(cmd.Context(), name)
				switch {
				case all && errno.Is(err, errno.Unavailable): // it ended meanwhile
					continue
				case errno.Is(err, errno.Unavailable):
					return errno.New(errno.NotFound, "", 0, "no lab named %q is running; `ssi lab status` lists those that are", name)
				case err != nil:
					return plain(err)
				}
				if err := l.Down(cmd.Context()); err != nil {
					return plain(err)
				}
			}
			return nil
		},
	}, exitPlain)
	cmd.Flags().BoolVar(&all, "all", false, "end every lab of this machine")
	return cmd
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

func (c *commands) status() *cobra.Command {
	var asJSON bool
	cmd := manual(&cobra.Command{
		Use:   "status [--name NAME] [--json]",
		Short: "show the labs of this machine",
		Long: `status shows every lab of this machine, or the one that --name names: its nodes
as machines (on, off, paused) and the faults of its network. What the nodes are
in the cluster is told by cluster(1) on one of them.`,
		Example: `  ssi lab status
  ssi lab exec 1 cluster`,
		Args: c.args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := precheck(); err != nil {
				return plain(err)
			}
			list := []string{c.name}
			if !cmd.Flags().Changed("name") {
				var err error
				if list, err = List(cmd.Context()); err != nil {
					return plain(err)
				}
			}
			all := []Status{}
			for _, name := range list {
				l, err := Attach(cmd.Context(), name)
				if err != nil {
					return plain(err)
				}
				st, err := l.Status(cmd.Context())
				if err != nil {
					return plain(err)
				}
				all = append(all, st)
			}
			if asJSON {
				enc := json.NewEncoder(c.env.Out)
				enc.SetIndent("", "  ")
				return enc.Encode(all)
			}
			return c.printStatus(all)
		},
	}, exitPlain)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print everything as JSON")
	return cmd
}

func (c *commands) printStatus(all []Status) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(c.env.Out, "no lab is running: `ssi lab run` starts one")
		return err
	}
	tw := tabwriter.NewWriter(c.env.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "LAB\tNODE\tSTATE\tADDR\tSINCE\tBOOTS\tWHY")
	for _, st := range all {
		for _, n := range st.Nodes {
			fmt.Fprintf(tw, "%s\t%d\t%s\t%s\t%s\t%d\t%s\n", st.Name, n.Node, n.State, n.Addr, time.Since(n.Since).Truncate(time.Second), n.Boots, n.Cause)
		}
	}
	err := tw.Flush()
	for _, st := range all {
		for _, f := range st.Faults {
			_, perr := fmt.Fprintf(c.env.Out, "%s: %s\n", st.Name, f)
			err = errors.Join(err, perr)
		}
	}
	return err
}

// String tells a fault in words.
func (f Fault) String() string {
	var what []string
	if f.Cut {
		what = append(what, "cut")
	}
	if f.Delay > 0 {
		what = append(what, "delayed by "+f.Delay.String())
	}
	if f.Loss > 0 {
		what = append(what, fmt.Sprintf("%g%% lost", f.Loss*100))
	}
	where := fmt.Sprintf("node %d to node %d", f.From, f.To)
	if f.To == 0 {
		where = fmt.Sprintf("node %d, in and out", f.From)
	}
	return where + ": " + strings.Join(what, ", ")
}
