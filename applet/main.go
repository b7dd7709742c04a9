package applet

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// program is the name of the binary that holds all commands.
const program = "ssi"

// Main runs the command that env.Args asks for and returns its exit status.
//
// The base name of Args[0] chooses the command when the table has it, so that a
// link is a command; otherwise Args[1] does.
func Main(env *Env, table []Entry) int {
	env.table = table
	name := strings.TrimPrefix(filepath.Base(env.Args[0]), "-") // a login shell's name has a dash
	if e, ok := find(table, name); ok && !e.NoLink {
		return run(env, e, nil, env.Args[1:])
	}
	args := env.Args[1:]
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return execute(env, newRoot(env), args)
	}
	if isCompletion(args[0]) {
		return execute(env, NewTree(env, table), args)
	}
	e, ok := find(table, args[0])
	if !ok {
		fmt.Fprintf(env.Stderr, "%s: there is no command %q%s; `%s help` lists all\n", program, args[0], meant(table, args[0]), program)
		return StatusUsage
	}
	if role, ok := findRole(table, args[0]); ok && len(args) == 1 {
		e = role
	}
	return run(env, e, newRoot(env), args)
}

// run runs one entry: under root, with its name as the first argument, or, when
// root is nil, by itself.
func run(env *Env, e Entry, root *cobra.Command, args []string) int {
	if e.Run != nil {
		if root != nil {
			args = args[1:]
		}
		return e.Run(env, args)
	}
	cmd := e.New(env)
	if root == nil {
		return execute(env, cmd, args)
	}
	root.AddCommand(cmd)
	return execute(env, root, args)
}

// execute runs a command tree and reports its error in one line.
func execute(env *Env, root *cobra.Command, args []string) int {
	prepare(env, root)
	running := false
	watchRun(root, &running)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(context.Background())
	status, silent := statusOf(err)
	if err != nil && !running { // all that cobra itself refuses is the command line
		status = StatusUsage
	}
	if !silent {
		name := commandName(cmd)
		fmt.Fprintf(env.Stderr, "%s: %s\n", name, message(err))
		if status == StatusUsage {
			fmt.Fprintf(env.Stderr, "Try `%s --help`.\n", cmd.CommandPath())
		}
	}
	return status
}

// plainUse keeps cobra from adding "[flags]" to synopses, which name them.
func plainUse(cmd *cobra.Command) {
	cmd.DisableFlagsInUseLine = true
	for _, sub := range cmd.Commands() {
		plainUse(sub)
	}
}

// watchRun makes every command of a tree note that it began to run.
func watchRun(cmd *cobra.Command, running *bool) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*running = true
			return run(cmd, args)
		}
	}
	for _, sub := range cmd.Commands() {
		watchRun(sub, running)
	}
}

// prepare gives a command tree the manners that all commands share.
func prepare(env *Env, root *cobra.Command) {
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	root.SilenceErrors = true
	root.SilenceUsage = true
	root.DisableSuggestions = true
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(&cobra.Command{Hidden: true, Use: "no-help"})
	plainUse(root)
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { writeHelp(cmd.OutOrStdout(), cmd) })
}

// NewTree makes all commands of the table under one root: for completion, help
// and the man pages.
func NewTree(env *Env, table []Entry) *cobra.Command {
	env.table = table
	root := newRoot(env)
	for _, e := range table {
		if e.New != nil {
			root.AddCommand(e.New(env))
		}
	}
	prepare(env, root)
	return root
}

// newRoot makes the command that the bare program is.
func newRoot(env *Env) *cobra.Command {
	var dir, target string
	var all, version bool
	cmd := &cobra.Command{
		Use:   program + " COMMAND [ARGUMENT…]",
		Short: "several Linux machines as one",
		Long: `ssi makes several Linux machines one: one list of processes, one registry,
one init that survives the machine it runs on. It is one program; its first
argument, or the name it was started under, chooses the command.

--install makes a link to this program in DIR for every command. Names that a
distribution has already (ps, top, kill) are linked only with --all, so that
the stock tools stay what they are. It may be repeated; it never replaces a
file that is not a link to an ssi binary.`,
		Example: `  ssi help                       list all commands
  ssi help onnode                explain one
  ssi --install /usr/local/bin   make links: onnode, cluster, …`,
		Args: Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case version:
				return printVersion(env, false)
			case cmd.Flags().Changed("install"):
				return install(env, dir, target, all)
			case all, target != "":
				return Usagef("--all and --target go with --install")
			}
			return overview(env)
		},
	}
	cmd.Flags().StringVar(&dir, "install", "", "link every command into `DIR`")
	cmd.Flags().StringVar(&target, "target", "", "with --install: link to `PATH` instead of this program, which may not be there yet")
	cmd.Flags().BoolVar(&all, "all", false, "with --install: also link names that a distribution has")
	cmd.Flags().BoolVar(&version, "version", false, "print the version")
	return cmd
}

func isCompletion(arg string) bool {
	return arg == cobra.ShellCompRequestCmd || arg == cobra.ShellCompNoDescRequestCmd
}

// commandName is how a command calls itself in messages: without the name of
// the program it is part of.
func commandName(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), program+" ")
}
