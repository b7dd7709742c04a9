package applet

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// The parts of a manual that cobra has no field for, as annotations.
const (
	exitKey    = "exit-status"
	seeAlsoKey = "see-also"
)

// Manual completes the help of cmd: what its exit statuses mean, a line each as
// "STATUS MEANING", and which other commands to see.
func Manual(cmd *cobra.Command, exit string, seeAlso ...string) *cobra.Command {
	cmd.Annotations = map[string]string{exitKey: exit, seeAlsoKey: strings.Join(seeAlso, " ")}
	return cmd
}

// The exit statuses of most commands.
const (
	exitPlain = "0 success\n1 failure; stderr says what, why and what to do\n2 the command line makes no sense"
	exitRun   = "0 the program succeeded\nN the program's own exit status\n126 the program was found and could not be run\n127 the program was not found\n128+S the program was killed by signal S\n255 the node cannot be reached or died meanwhile, or is not in the cluster\n2 the command line makes no sense"
)

// ManualOf gives back what Manual set.
func ManualOf(cmd *cobra.Command) (exit [][2]string, seeAlso []string) {
	for line := range strings.Lines(cmd.Annotations[exitKey]) {
		status, meaning, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		exit = append(exit, [2]string{status, meaning})
	}
	return exit, strings.Fields(cmd.Annotations[seeAlsoKey])
}

// writeHelp prints the help of one command.
func writeHelp(w io.Writer, cmd *cobra.Command) {
	fmt.Fprintf(w, "%s - %s\n\nUsage:\n  %s\n", commandName(cmd), cmd.Short, cmd.UseLine())
	subs := visible(cmd)
	if len(subs) > 0 {
		fmt.Fprintf(w, "  %s COMMAND …\n", cmd.CommandPath())
	}
	if cmd.Long != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(cmd.Long))
	}
	if len(subs) > 0 {
		fmt.Fprint(w, "\nCommands:\n")
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, sub := range subs {
			fmt.Fprintf(tw, "  %s\t%s\n", sub.Name(), sub.Short)
		}
		_ = tw.Flush()
	}
	if flags := cmd.Flags().FlagUsages(); flags != "" {
		fmt.Fprintf(w, "\nOptions:\n%s", flags)
	}
	exit, seeAlso := ManualOf(cmd)
	if len(exit) > 0 {
		fmt.Fprint(w, "\nExit status:\n")
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, line := range exit {
			fmt.Fprintf(tw, "  %s\t%s\n", line[0], line[1])
		}
		_ = tw.Flush()
	}
	if cmd.Example != "" {
		fmt.Fprintf(w, "\nExamples:\n%s\n", strings.TrimRight(cmd.Example, "\n"))
	}
	if len(seeAlso) > 0 {
		fmt.Fprintf(w, "\nSee also: %s\n", strings.Join(seeAlso, ", "))
	}
}

func visible(cmd *cobra.Command) []*cobra.Command {
	var subs []*cobra.Command
	for _, sub := range cmd.Commands() {
		if !sub.Hidden {
			subs = append(subs, sub)
		}
	}
	return subs
}

// overview lists all commands.
func overview(env *Env) error {
	w, width := env.Stdout, 0
	for _, e := range env.table {
		width = max(width, len(e.Name))
	}
	fmt.Fprintf(w, "%s %s: several Linux machines as one\n", program, env.Version)
	for _, group := range Groups() {
		title := false
		for _, e := range env.table {
			if e.Group != group {
				continue
			}
			if !title {
				fmt.Fprintf(w, "\n%s:\n", group)
				title = true
			}
			fmt.Fprintf(w, "  %-*s  %s\n", width, e.Name, e.Short)
		}
	}
	_, err := fmt.Fprintf(w, "\n`%s help COMMAND` explains one; `%s --install DIR` makes links, so that `onnode` is enough for `%s onnode`.\n", program, program, program)
	return err
}

func newHelp(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "help [COMMAND [SUBCOMMAND]]",
		Short: "explain a command",
		Long:  `help prints the manual of a command, or the list of all commands.`,
		Example: `  ssi help
  ssi help cluster token`,
		Args: Args(0, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return overview(env)
			}
			e, ok := find(env.table, args[0])
			if !ok {
				return Usagef("there is no command %q%s", args[0], meant(env.table, args[0]))
			}
			if e.New == nil {
				_, err := fmt.Fprintf(env.Stdout, "%s - %s\n\nIt is started by the system, not by users.\n", e.Name, e.Short)
				return err
			}
			root := newRoot(env)
			root.AddCommand(e.New(env))
			prepare(env, root)
			target, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return Usagef("%s has no subcommand %q", args[0], args[1])
			}
			target.InitDefaultHelpFlag()
			writeHelp(env.Stdout, target)
			return nil
		},
	}
	return Manual(cmd, exitPlain, program+"(1)")
}

// meant suggests the command that was probably meant.
func meant(table []Entry, typed string) string {
	var names []string
	for _, e := range table {
		names = append(names, e.Name)
	}
	return closest(typed, names)
}

// closest is a hint at the name that differs least from what was typed, by at
// most two letters, or nothing.
func closest(typed string, names []string) string {
	best, name := min(3, len(typed)), ""
	for _, n := range names {
		if d := distance(typed, n); d < best {
			best, name = d, n
		}
	}
	if name == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", name)
}

// distance is the Levenshtein distance of two words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
