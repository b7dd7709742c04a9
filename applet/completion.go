package applet

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"ssi/internal/api"
)

// completionTimeout is how long <TAB> waits for the daemon.
const completionTimeout = time.Second

func newCompletion(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "print the completion script of a shell",
		Long: `completion prints a script that makes a shell complete the commands of ssi, their
options, and the names of nodes. It covers ssi and the links that --install makes.`,
		Example: `  ssi completion bash > /etc/bash_completion.d/ssi
  ssi completion zsh  > "${fpath[1]}/_ssi"
  ssi completion fish > ~/.config/fish/completions/ssi.fish`,
		Args:      Args(1, 1),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(_ *cobra.Command, args []string) error {
			return WriteCompletion(env, env.table, args[0])
		},
	}
	return Manual(cmd, exitPlain, program+"(1)")
}

// WriteCompletion prints the completion script of a shell for all commands of a
// table: under the program's name and under the names of their links.
func WriteCompletion(env *Env, table []Entry, shell string) error {
	root := newRoot(env) // the scripts ask the program itself, so they need only its name
	prepare(env, root)
	w := env.Stdout
	var err error
	var line string
	switch shell {
	case "bash":
		err, line = root.GenBashCompletionV2(w, true), "complete -o default -F __start_"+program+" %s\n"
	case "zsh":
		err, line = root.GenZshCompletion(w), "compdef _"+program+" %s\n"
	case "fish":
		err, line = root.GenFishCompletion(w, true), "complete -c %[1]s -f -n '__ssi_clear_perform_completion_once_result' -a '$__ssi_comp_results'\n"
	default:
		return Usagef("%q: completion is for bash, zsh and fish", shell)
	}
	if err != nil {
		return err
	}
	for _, e := range table {
		if !e.NoLink && !e.Stock && e.New != nil {
			if _, err := fmt.Fprintf(w, line, e.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

type completer = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// completeNodes offers the numbers and names of nodes for the first argument. To
// run something it offers only nodes that are UP, and the word for the least
// loaded one.
func completeNodes(env *Env, run bool) completer {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var words []string
		for _, n := range completionNodes(env) {
			if run && n.State != api.Up {
				continue
			}
			words = append(words, fmt.Sprintf("%d\t%s, %s", n.Node, n.Name, n.State), fmt.Sprintf("%s\tnode %d, %s", n.Name, n.Node, n.State))
		}
		if run {
			words = append(words, best+"\tthe least loaded node")
		}
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeRun offers nodes, and behind the node what the shell offers.
func completeRun(env *Env) completer {
	nodes := completeNodes(env, true)
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return nodes(cmd, args, word)
	}
}

func completeClasses(env *Env) completer {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		var words []string
		for _, n := range completionNodes(env) {
			words = append(words, n.Classes...)
		}
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

// completionNodes asks for the nodes; without a daemon there is nothing to
// offer, and a shell is no place for messages.
func completionNodes(env *Env) []api.NodeInfo {
	ctx, cancel := context.WithTimeout(context.Background(), completionTimeout)
	defer cancel()
	s, err := Status(ctx, env)
	if err != nil {
		return nil
	}
	return s.Nodes
}
