package applet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// The statuses of a program that did not run, as in a shell, and of a node that
// could not run it.
const (
	statusNotRunnable = 126
	statusNotFound    = 127
	statusNodeLost    = 255
)

// best is the word for the least loaded node.
const best = "best"

func newOnNode(env *Env) *cobra.Command {
	var local, pin bool
	cmd := &cobra.Command{
		Use:   "onnode [-l] [-p] NODE COMMAND [ARGUMENT…]",
		Short: "run a program on a node",
		Long: `onnode runs a program on a node as if it ran here: with your user and groups,
directory, environment, limits and umask, the standard streams, the terminal with
its size and job control (^C, ^Z, fg), signals and exit status. NODE is a number, the
name of a node, or best: the node that is UP and has the least load.

Killing onnode kills the program. When the node dies meanwhile, onnode says so and
ends with status 255. The program is found in the PATH of that node. In it,
SSI_NODE is the number of the node it runs on.`,
		Example: `  onnode 2 uname -n
  onnode best make -j4
  onnode 2 vi /etc/hosts
  tar c . | onnode 3 tar x -C /srv`,
		Args: Args(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := runNode(cmd.Context(), env, args[0])
			if err != nil {
				return err
			}
			req := ExecRequest{Name: "onnode", Node: n, Argv: args[1:], Pin: pin, Attach: true}
			if local {
				req.Env = append(req.Env, LocalViewEnv+"=1")
			}
			return runOne(cmd.Context(), env, req)
		},
		ValidArgsFunction: completeRun(env),
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().BoolVarP(&local, "localview", "l", false, "the program sees its own node only, see localview")
	cmd.Flags().BoolVarP(&pin, "pin", "p", false, "the program stays on that node, load levelling leaves it there")
	return Manual(cmd, exitRun, "onall(1)", "onclass(1)", "fast(1)", "localview(1)", "where_pid(1)")
}

// runNode finds the node to run on; failing is the status of a lost node, as
// the status 1 would be taken for the program's.
func runNode(ctx context.Context, env *Env, arg string) (id.Node, error) {
	n, err := id.Node(0), error(nil)
	if arg == best {
		n, err = bestNode(ctx, env)
	} else {
		n, err = nodeArg(ctx, env, arg)
	}
	var u *UsageError
	if err != nil && !errors.As(err, &u) {
		err = &failed{status: statusNodeLost, err: err}
	}
	return n, err
}

// bestNode is the UP node with the least load; ties go to the lower number.
func bestNode(ctx context.Context, env *Env) (id.Node, error) {
	loads, err := Call[api.Loads](ctx, env, api.ProcessLoads, api.ListLoads{})
	if err != nil {
		return 0, err
	}
	n, ok := loads.Best()
	if !ok {
		return 0, errno.New(errno.Unavailable, "", 0, "no node tells its load; see `loads`")
	}
	return n, nil
}

// runOne runs one program in the foreground and passes on its status.
func runOne(ctx context.Context, env *Env, req ExecRequest) error {
	status, err := env.Exec(ctx, req)
	if err != nil {
		if status == 0 {
			status = statusNodeLost
		}
		return &failed{status: status, err: err}
	}
	if status != 0 {
		return StatusError(status)
	}
	return nil
}

func newFast(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fast COMMAND [ARGUMENT…]",
		Short: "run a program on the least loaded node",
		Long: `fast runs a program on the node that is UP and has the least load, as
onnode best does.`,
		Example: `  fast make -j4`,
		Args:    Args(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := runNode(cmd.Context(), env, best)
			if err != nil {
				return err
			}
			return runOne(cmd.Context(), env, ExecRequest{Name: "fast", Node: n, Argv: args, Attach: true})
		},
	}
	cmd.Flags().SetInterspersed(false)
	return Manual(cmd, exitRun, "onnode(1)", "fastnode(1)", "loads(1)")
}

func newFastNode(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fastnode",
		Short: "print the number of the least loaded node",
		Long: `fastnode prints the number of the node that is UP and has the least load; of
equals the lowest.`,
		Example: `  onnode "$(fastnode)" make`,
		Args:    Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := bestNode(cmd.Context(), env)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(env.Stdout, n)
			return err
		},
	}
	return Manual(cmd, exitPlain, "fast(1)", "loads(1)")
}

func newLocalView(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "localview COMMAND [ARGUMENT…]",
		Short: "run a program that sees its own node only",
		Long: `localview runs a program here that sees its own node only: /proc shows no
processes of others, and so do the commands of ssi (ps, top, loads, onall). It sets
SSI_LOCALVIEW in the environment, so it also holds for what the program starts, also
by onnode.`,
		Example: `  localview ssi ps aux
  localview sh`,
		Args: Args(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return localView(cmd.Context(), env, args)
		},
	}
	cmd.Flags().SetInterspersed(false)
	return Manual(cmd, "N the program's own exit status\n126 the program was found and could not be run\n127 the program was not found\n2 the command line makes no sense", "onnode(1)", "ssi-ps(1)")
}

func localView(ctx context.Context, env *Env, argv []string) error {
	switch err := env.LocalProc(); {
	case errors.Is(err, unix.EPERM): // the node's daemon may: as for onnode -l
		status, err := env.Exec(ctx, ExecRequest{Name: "localview", Argv: argv, Env: []string{LocalViewEnv + "=1"}, Attach: true})
		if err == nil && status == 0 {
			return nil
		}
		return &failed{status: status, err: err}
	case err != nil:
		return err
	}
	environ := append(os.Environ(), LocalViewEnv+"=1")
	status, err := notReplaced(argv[0], env.Replace(argv[0], argv, environ))
	return &failed{status: status, err: err}
}

// notReplaced explains like a shell why this process could not become a program.
func notReplaced(name string, err error) (status int, why error) {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return statusNotFound, fmt.Errorf("%s: not found", name)
	}
	return statusNotRunnable, err
}

// Become makes this process a program, found in PATH. If it returns, status is what
// a shell would show, and err says why.
func Become(argv, environ []string) (status int, err error) {
	return notReplaced(argv[0], replace(argv[0], argv, environ))
}

// replace is Env.Replace of a real process.
func replace(name string, argv, env []string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	if err := syscall.Exec(path, argv, env); err != nil {
		return &fs.PathError{Op: "exec", Path: path, Err: err}
	}
	return nil
}
