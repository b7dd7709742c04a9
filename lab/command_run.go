package lab

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/pty"
)

// endGrace is how long a command may take to end after a signal that ends the
// lab.
const endGrace = 2 * time.Second

// startFlags are the options of commands that start a lab.
type startFlags struct {
	nodes   int
	profile string
	disk    string
	share   []string
	seed    uint64
	noWait  bool
	timeout time.Duration
	vm      bool
	kernel  string
	modules string
	changed func(flag string) bool
}

// consoleFlag adds --console.
func consoleFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("console", false, "run it past the node's daemon, by entering the node from outside")
}

func (s *startFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.IntVarP(&s.nodes, "nodes", "n", 3, fmt.Sprintf("how many nodes, 1 to %d", MaxNodes))
	f.StringVar(&s.profile, "profile", "", "timing profile of the cluster: fast, lan, wan (default fast, with --vm lan)")
	f.StringVar(&s.disk, "disk", "512M", "size of each node's disk, which lies in memory")
	f.StringArrayVar(&s.share, "share", nil, "a directory of this machine that the nodes see, each as its own copy; may be repeated")
	f.Uint64Var(&s.seed, "seed", 0, "seed of the random losses")
	f.DurationVar(&s.timeout, "timeout", 0, fmt.Sprintf("how long to wait until all nodes are UP (default %v, with --vm %v)", DefaultTimeout, VMTimeout))
	f.BoolVar(&s.vm, "vm", false, "the nodes are machines (QEMU): node 1 boots the others over the network")
	f.StringVar(&s.kernel, "kernel", "", "with --vm: the kernel of the machines (default: the newest /boot/vmlinuz-* of Linux 6.12 or later)")
	f.StringVar(&s.modules, "modules", "", "with --vm: its modules (default: lib/modules/VERSION beside the boot directory of the kernel)")
	s.changed = f.Changed
}

func (s *startFlags) options(c *commands) (Options, error) {
	if s.nodes < 1 || s.nodes > MaxNodes {
		return Options{}, c.env.Usage(fmt.Sprintf("%d nodes: a lab has 1 to %d", s.nodes, MaxNodes))
	}
	disk, err := c.bytesOf(s.disk)
	if err != nil {
		return Options{}, err
	}
	if s.vm {
		for _, name := range []string{"disk", "share"} {
			if s.changed(name) {
				return Options{}, c.env.Usage("--" + name + " is for nodes without --vm: a machine's root is in its memory, the state of node 1 on a disk of 512 MiB, and it sees no files of this one")
			}
		}
		return Options{Name: c.name, Nodes: s.nodes, Profile: s.profile, Seed: s.seed, NoWait: s.noWait, Timeout: s.timeout,
			VM: &VM{Kernel: s.kernel, Modules: s.modules, Initramfs: c.env.Initramfs}}, nil
	}
	if s.kernel != "" || s.modules != "" {
		return Options{}, c.env.Usage("--kernel and --modules are for --vm: other nodes run the kernel of this machine")
	}
	o := Options{Name: c.name, Nodes: s.nodes, Profile: s.profile, Disk: disk, Share: s.share, Seed: s.seed, NoWait: s.noWait, Timeout: s.timeout}
	if dir, err := os.Getwd(); err == nil && unseen(dir) {
		o.Share = append(o.Share, dir)
	}
	return o, nil
}

// unseen reports whether the nodes would not see this directory and can be made
// to: it lies in /tmp or on another file system than the root.
func unseen(dir string) bool {
	var here, root unix.Stat_t
	if own(dir) || unix.Stat(dir, &here) != nil || unix.Stat("/", &root) != nil {
		return false
	}
	return here.Dev != root.Dev || strings.HasPrefix(dir, "/tmp/")
}

func (c *commands) run() *cobra.Command {
	var s startFlags
	var console *bool
	cmd := manual(&cobra.Command{
		Use:   "run [-n N] [--] [CMD [ARG…]]",
		Short: "start a lab, run a command on node 1, end the lab",
		Long: `run starts a lab, waits until all nodes are UP, runs CMD on node 1 with the
standard streams, terminal and signals of this process, and ends the lab. The exit
status is that of CMD. Without CMD it runs an interactive shell. It enters the node
as lab exec does.

CMD starts in the current directory; when the nodes cannot see that, each gets a
copy of its own.`,
		Example: `  ssi lab run
  ssi lab run -n 5 -- sh ./script.sh
  ssi lab run -- onall uname -n`,
		Args: c.args(0, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := s.options(c)
			if err != nil {
				return err
			}
			return c.runLab(cmd.Context(), o, *console, args)
		},
	}, exitRun)
	console = consoleFlag(cmd)
	cmd.Flags().SetInterspersed(false)
	s.add(cmd)
	return cmd
}

func (c *commands) runLab(ctx context.Context, o Options, console bool, args []string) (err error) {
	start, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	began := time.Now()
	l, err := Start(start, o)
	if err != nil {
		if start.Err() != nil {
			err = errno.New(errno.Other, "lab", 0, "interrupted before the nodes were UP; nothing is left of the lab")
		}
		fmt.Fprintf(c.env.Err, "lab run: %v\n", plain(err))
		return c.env.Exit(255)
	}
	if len(args) == 0 && pty.IsTerminal(c.env.In) {
		fmt.Fprintf(c.env.Err, welcome, o.Nodes, time.Since(began).Seconds(), o.Name)
	}
	// From here on the signals are the command's.
	return c.runIn(ctx, l, 1, Cmd{Args: shellOr(args), Console: console}, stop, l.Close)
}

const welcome = `%d nodes are up after %.1f s. This is a shell on node 1 of lab %q.
  cluster             the nodes and which one holds init
  onnode 2 hostname   run something on node 2
  onall uname -n      run something on all nodes
  clreg put /a b      write to the registry of the cluster
In another terminal: ssi lab crash 2, ssi lab start 2, ssi lab cut 1 2, ssi lab --help.
Leave the shell (exit, ^D) and all of it is gone.
`

// shellOr is the command to run, by default an interactive shell.
func shellOr(args []string) []string {
	if len(args) > 0 {
		return args
	}
	return []string{"/bin/sh", "-c", "if command -v bash >/dev/null; then exec bash; fi; exec sh -i"}
}

// runIn runs a command in a node as if it were one here, calls end, and ends
// this program with the status of the command. ready is called when the signals
// are cared for.
func (c *commands) runIn(ctx context.Context, l *Lab, n id.Node, cmd Cmd, ready func(), end func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(signals)
	ready()
	pass, done := make(chan os.Signal, 8), make(chan struct{})
	defer func() { <-done }()
	go func() {
		defer close(done)
		forward(ctx, cancel, signals, pass)
	}()
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Signals = c.env.In, c.env.Out, c.env.Err, pass
	cmd.TTY = pty.IsTerminal(c.env.In) && pty.IsTerminal(c.env.Out)
	status, err := l.Run(ctx, n, cmd)
	interrupted := ctx.Err() != nil
	cancel()
	if eerr := end(); eerr != nil && err == nil {
		err = eerr
		status = 255
	}
	if err != nil && !interrupted {
		fmt.Fprintf(c.env.Err, "lab: %v\n", plain(err))
	}
	return c.env.Exit(status)
}

// forward passes signals on. One that means the end gives the command some time,
// then the end comes.
func forward(ctx context.Context, cancel func(), signals <-chan os.Signal, pass chan<- os.Signal) {
	var timeout <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-timeout:
			cancel()
		case sig := <-signals:
			if (sig == unix.SIGTERM || sig == unix.SIGHUP) && timeout == nil {
				timeout = time.After(endGrace)
			}
			select {
			case pass <- sig:
			default: // a command that takes none is not helped by more
			}
		}
	}
}

func (c *commands) exec() *cobra.Command {
	var console *bool
	cmd := manual(&cobra.Command{
		Use:   "exec [--console] NODE [--] CMD [ARG…]",
		Short: "run a command on a node",
		Long: `exec runs CMD on a node with the standard streams, terminal and signals of this
process, and ends with its exit status. It enters the node as a login does: the
node's own daemon starts CMD, as it does for onnode.

A node that is fenced starts nothing, and ends what runs there. --console needs
nothing of the node: it enters the namespaces from outside. What it runs is not
among the processes that the cluster knows as its users'.`,
		Example: `  ssi lab exec 2 ip addr
  ssi lab exec 3 -- sh -c 'dd if=/dev/zero of=/fill; rm /fill'
  ssi lab exec --console 3 cluster -v`,
		Args: c.args(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.execIn(cmd.Context(), args[0], *console, args[1:])
		},
	}, exitExec)
	cmd.Flags().SetInterspersed(false)
	console = consoleFlag(cmd)
	return cmd
}

func (c *commands) sh() *cobra.Command {
	var console *bool
	cmd := manual(&cobra.Command{
		Use:   "sh [--console] NODE",
		Short: "a shell on a node",
		Long: `sh runs an interactive shell on a node, which it enters as exec does: as a login,
or with --console past the node's daemon.`,
		Example: `  ssi lab sh 2`,
		Args:    c.args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.execIn(cmd.Context(), args[0], *console, shellOr(nil))
		},
	}, exitExec)
	console = consoleFlag(cmd)
	return cmd
}

func (c *commands) execIn(ctx context.Context, node string, console bool, args []string) error {
	n, err := c.node(node)
	if err != nil {
		return err
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return c.env.Usage("a command is missing")
	}
	l, err := Attach(ctx, c.name)
	if err != nil {
		fmt.Fprintf(c.env.Err, "lab: %v\n", plain(err))
		return c.env.Exit(255)
	}
	return c.runIn(ctx, l, n, Cmd{Args: args, Console: console}, func() {}, l.Close)
}

func (c *commands) logs() *cobra.Command {
	var follow bool
	cmd := c.verb("logs NODE [-f]", "show the console of a node", `logs prints what the first process of a node and the roles below it wrote, over
all of the node's lives; the last megabyte is kept.`, "  ssi lab logs 2 -f", 1, 1, func(ctx context.Context, l *Lab, args []string) error {
		n, err := c.node(args[0])
		if err != nil {
			return err
		}
		return l.Logs(ctx, n, follow, c.env.Out)
	})
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as more is written")
	return cmd
}

func (c *commands) add() *cobra.Command {
	return c.verb("add", "add a node", `add makes one more node, which gets a token from a node that is on and joins the
cluster. It prints the number of the new node.`, "  ssi lab add", 0, 0, func(ctx context.Context, l *Lab, _ []string) error {
		n, err := l.Add(ctx)
		if err != nil {
			return err
		}
		if err := l.Wait(ctx, DefaultTimeout); err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.env.Out, n)
		return err
	})
}
