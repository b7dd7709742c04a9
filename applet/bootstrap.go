package applet

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"ssi/internal/config"
	"ssi/internal/errno"
	"ssi/internal/id"

	"ssi/internal/api"
)

// maxTokens is how many tokens one `cluster init` issues: one for each further
// node number.
const maxTokens = int(id.MaxNode) - 1

func newInit(env *Env) *cobra.Command {
	var opts InitOptions
	var node uint16
	var out string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "init [--name NAME] [--node N] [--addr HOST:PORT]",
		Short: "found a cluster whose first node is this machine",
		Long: `init makes the certificate authority of a new cluster and the certificate of
this machine, its first node. The node daemon of this machine takes them up by
itself. Other machines join with a one-time token: see cluster token.

A machine that is a node already is refused; --force forgets the old cluster:
its files, the keys included, move to aside.TIME in the state directory.`,
		Example: `  cluster init --name web
  cluster init --name web --addr 10.0.0.1:1985 --tokens 2 --tokens-out /root/tokens`,
		Args: Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Node = id.Node(node)
			switch {
			case !opts.Node.Valid():
				return Usagef("--node %d: node numbers are 1 to %d", node, id.MaxNode)
			case opts.Tokens < 0 || opts.Tokens > maxTokens:
				return Usagef("--tokens %d: 0 to %d can be issued", opts.Tokens, maxTokens)
			case out != "" && !cmd.Flags().Changed("tokens"):
				return Usagef("--tokens-out goes with --tokens N")
			}
			if opts.Profile != "" {
				if err := config.CheckProfile(opts.Profile); err != nil {
					return Usagef("--profile: %v", err)
				}
			}
			if err := checkAddr("--addr", opts.Addr); err != nil {
				return err
			}
			res, err := env.Bootstrap.Init(cmd.Context(), opts)
			if err != nil {
				return err
			}
			if out != "" {
				if err := writeSecret(out, strings.Join(res.Tokens, "\n")+"\n"); err != nil {
					return err
				}
			}
			if asJSON {
				return PrintJSON(env.Stdout, res)
			}
			fmt.Fprintf(env.Stdout, "This machine is node %d of cluster %s (%s), at %s.\n", res.Node, res.Name, res.ID, res.Addr)
			if out == "" {
				for _, token := range res.Tokens {
					fmt.Fprintln(env.Stdout, token)
				}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&opts.Name, "name", "ssi", "`NAME` of the cluster")
	f.Uint16Var(&node, "node", 1, "`NUMBER` of this machine")
	f.StringVar(&opts.Addr, "addr", "", "`HOST:PORT` where other nodes reach this one (default: the address of the default route, port 1985)")
	f.StringVar(&opts.Profile, "profile", "", "timing: fast, lan or wan (default: of the configuration, or lan)")
	f.IntVar(&opts.Tokens, "tokens", 0, "also issue this many one-time tokens")
	f.StringVar(&out, "tokens-out", "", "write the tokens to `FILE`, one a line, readable by root only")
	f.BoolVar(&opts.Force, "force", false, "forget the cluster this machine belongs to")
	f.BoolVar(&asJSON, "json", false, "print the result as JSON, without the tokens")
	return Manual(cmd, exitPlain, "cluster-token(1)", "cluster-join(1)")
}

// checkAddr refuses what cannot be an address before anything is written.
func checkAddr(what, addr string) error {
	if addr == "" {
		return nil
	}
	if err := config.CheckAddr(addr); err != nil {
		return Usagef("%s: %v", what, err)
	}
	return nil
}

// writeSecret makes a new file that only its owner can read.
func writeSecret(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s exists: name a new file, tokens do not overwrite one", path)
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func newJoin(env *Env) *cobra.Command {
	cmd := joinCommand(env, false)
	cmd.Short = "make this machine a node of a cluster"
	cmd.Long = `join presents a one-time token to a node of the cluster, checks that the cluster
is the one the token was made for, and stores the certificate it gets. The node
daemon of this machine takes it up by itself.

The token is a secret, so it is never an argument: it is read from the file that
--token-file names, or from stdin, or asked for on the terminal. A file may hold
addresses behind the token; they are used when none are given.`
	cmd.Example = `  cluster join 10.0.0.1                         asks for the token
  cluster join --token-file /root/token 10.0.0.1:1985
  ssh node1 cluster token | cluster join        token and address in one`
	return Manual(cmd, exitPlain, "cluster-token(1)", "cluster-init(1)", "cluster-witness(1)")
}

func newWitness(env *Env) *cobra.Command {
	cmd := joinCommand(env, true)
	cmd.Short = "make this machine the tie-breaker of a cluster"
	cmd.Long = `witness joins a cluster like join does, but only to vote: a cluster of two nodes
cannot decide when one of them is gone, with a witness it can. A witness runs no
programs, holds no init and is no node; any small machine will do that both
nodes reach by different ways. Its token is made by cluster token --witness,
while the cluster can decide: a witness cannot join a cluster that has stopped.`
	cmd.Example = `  node1# cluster token --witness
  small# cluster witness 10.0.0.1               asks for the token`
	return Manual(cmd, exitPlain, "cluster-token(1)", "cluster-force(1)")
}

// joinCommand is what join and witness have in common.
func joinCommand(env *Env, witness bool) *cobra.Command {
	use := "join"
	if witness {
		use = "witness"
	}
	opts := JoinOptions{Witness: witness}
	var file string
	var asJSON bool
	cmd := &cobra.Command{
		Use:  use + " [--token-file FILE] [HOST[:PORT]…]",
		Args: Args(0, config.MaxJoinAddrs),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkAddr("--addr", opts.Addr); err != nil {
				return err
			}
			for _, arg := range args {
				if strings.HasPrefix(arg, config.TokenPrefix) {
					return Usagef("a token is a secret: put it into a file (--token-file) or on stdin, arguments are seen by everyone on the machine; make a new token, this one is known now")
				}
				addr, err := config.CompleteAddr(arg)
				if err != nil {
					return Usagef("%v", err)
				}
				opts.Addrs = append(opts.Addrs, addr)
			}
			join, err := readToken(env, file)
			if err != nil {
				return err
			}
			opts.Token = join.Token
			if len(opts.Addrs) == 0 {
				opts.Addrs = join.Addrs
			}
			res, err := env.Bootstrap.Join(cmd.Context(), opts)
			if err != nil {
				return err
			}
			if asJSON {
				return PrintJSON(env.Stdout, res)
			}
			what := fmt.Sprintf("node %d", res.Node)
			if witness {
				what = "a witness"
			}
			_, err = fmt.Fprintf(env.Stdout, "This machine is %s of cluster %s (%s).\n", what, res.Name, res.ID)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "token-file", "", "read the token from `FILE`; - is stdin")
	f.StringVar(&opts.Name, "name", "", "`NAME` of this machine (default: its host name)")
	f.StringVar(&opts.Addr, "addr", "", "`HOST:PORT` where other nodes reach this one (default: the address that reaches the cluster, port 1985)")
	f.BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

// readToken gets the token from the file, from stdin or from the terminal,
// which does not show it.
func readToken(env *Env, file string) (config.Join, error) {
	if file != "" && file != "-" {
		return config.ReadJoin(file)
	}
	if f, ok := env.Stdin.(*os.File); ok && file == "" && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(env.Stderr, "Token: ")
		b, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(env.Stderr)
		if err != nil {
			return config.Join{}, fmt.Errorf("read the token from the terminal: %w", err)
		}
		return config.ParseJoin("the terminal", string(b))
	}
	b, err := io.ReadAll(io.LimitReader(env.Stdin, config.MaxJoinFile+1))
	if err != nil {
		return config.Join{}, fmt.Errorf("read the token from stdin: %w", err)
	}
	return config.ParseJoin("stdin", string(b))
}

func newRejoin(env *Env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "rejoin",
		Short: "start again under the own number, empty",
		Long: `rejoin is for a node whose copy of the cluster's state is damaged or was left
behind by cluster force. It puts that copy aside, it does not delete it, and the
node joins again under its number with the certificate it has, and gets the
state from the others. The others must be able to decide; when this node was the
only voter, its state is the only one: then do not rejoin but restore the
directory from a backup.`,
		Example: `  cluster rejoin`,
		Args:    Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			res, err := Call[api.RejoinReply](cmd.Context(), env, api.MethodClusterRejoin, api.RejoinParams{})
			if errno.Is(err, errno.Unavailable) { // no daemon: the files are ours
				res.Aside, err = env.Bootstrap.Rejoin(cmd.Context())
			}
			if err != nil {
				return err
			}
			if asJSON {
				return PrintJSON(env.Stdout, res)
			}
			if res.Aside == "" {
				_, err = fmt.Fprintln(env.Stdout, "This node had no state; it joins again when its daemon runs.")
				return err
			}
			_, err = fmt.Fprintf(env.Stdout, "The old state is in %s; this node joins again, empty.\n", res.Aside)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return Manual(cmd, exitPlain, "cluster-force(1)", "cluster-join(1)")
}
