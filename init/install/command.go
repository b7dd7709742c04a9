package install

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"ssi/internal/config"
)

// Env is what the commands need of the program they are part of.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	Terminal bool // somebody can answer at In

	Links  []string // names of the commands
	Config []byte   // the example configuration

	// Missing lists the features that this machine's kernel lacks.
	Missing func(ctx context.Context) []string
	// Found founds a cluster in the root directory, as `cluster init` does, and
	// returns what to tell about it.
	Found func(ctx context.Context, root string, o FoundOptions) (string, error)
	// Where is the address of its first node: as told, or with a configuration.
	Where func(root, told string, c config.Config) (addr string, err error)
	// Usage makes the error of a wrong command line.
	Usage func(text string) error
}

// FoundOptions are those of `cluster init`.
type FoundOptions struct{ Name, Addr string }

// Command is `ssi install`.
func Command(env Env) *cobra.Command {
	var o Options
	var founding FoundOptions
	var noCluster bool
	var man, binary string
	cmd := &cobra.Command{
		Use:   "install [--dry-run] [--root DIR] [--name NAME] [--addr HOST:PORT]",
		Short: "make this Debian machine the first node of a cluster",
		Long: `install adds ssi to a Debian installation: this program as /sbin/ssi, a link for
each command in /usr/local/bin, a configuration /etc/ssi/ssi.toml with the network
as it is now if there is none, the directory of the netboot service, a new cluster unless the
machine has one, and a boot entry "ssi" with init=/sbin/ssi beside the others
(grub, systemd-boot, extlinux). What boots the machine now is not touched and
stays the default, unless --default is given.

Everything is recorded in /var/lib/ssi/install.json before it is done, so install
can be repeated after an interruption or to bring a newer ssi, and ssi uninstall
takes back exactly what was done.

With --root DIR it works on a system that does not run: mounted, or an image in
the making. Its boot menu is then left to be made with update-grub in it.`,
		Example: `  ssi install --dry-run
  ssi install --name web
  ssi install --root /mnt --name web --addr 10.0.0.1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkRoot(env, &o.Root); err != nil {
				return err
			}
			var err error
			if o.Binary, err = program(binary); err != nil {
				return err
			}
			if o.Man, err = manPages(man); err != nil {
				return err
			}
			o.Links, o.Config, o.Out = env.Links, env.Config, env.Out
			if o.Root == "/" {
				o.Missing = env.Missing(cmd.Context())
				o.Update = runUpdateGrub(env)
				o.Network, o.Addr = ReadNetwork, founding.Addr
			}
			if !noCluster {
				o.Where = func(c config.Config) (string, error) { return env.Where(o.Root, founding.Addr, c) }
				o.Found = func(ctx context.Context, addr string) (string, error) {
					return env.Found(ctx, o.Root, FoundOptions{Name: founding.Name, Addr: addr})
				}
			}
			if err := Install(cmd.Context(), o); err != nil || o.DryRun {
				return err
			}
			_, err = fmt.Fprintln(env.Out, "Choose the boot entry ssi at the next start; `ssi uninstall` takes everything back.")
			return err
		},
	}
	cmd.Annotations = manual("ssi-uninstall(1) cluster-init(1) ssi-doctor(1)")
	f := cmd.Flags()
	f.BoolVarP(&o.DryRun, "dry-run", "n", false, "print every change, make none")
	f.StringVar(&o.Root, "root", "/", "install into the system in `DIR`")
	f.BoolVar(&o.Default, "default", false, "make the new boot entry the default")
	f.BoolVar(&noCluster, "no-cluster", false, "found no cluster: cluster init or cluster join follows")
	f.StringVar(&founding.Name, "name", "ssi", "`NAME` of the cluster")
	f.StringVar(&founding.Addr, "addr", "", "`HOST:PORT` where other nodes reach this one (default: the address of the default route, port 1985)")
	f.StringVar(&man, "man", "", "also install the man pages in `DIR`, as made by make man")
	f.StringVar(&binary, "program", "", "install `FILE` instead of the program that runs")
	return cmd
}

// UninstallCommand is `ssi uninstall`.
func UninstallCommand(env Env) *cobra.Command {
	var o UndoOptions
	var yes bool
	cmd := &cobra.Command{
		Use:   "uninstall [--dry-run] [--purge] [--root DIR]",
		Short: "undo what ssi install did",
		Long: `uninstall takes back what install has recorded: files that were there before come
back, the others are removed. A file that somebody has changed since is kept and
named. The cluster's state stays in /var/lib/ssi; --purge removes it too, with
the keys: as the only node, the cluster is gone with it. --purge asks; --yes
answers.

Do not run it on a system that was booted with ssi: start the other boot entry
first.`,
		Example: `  ssi uninstall --dry-run
  ssi uninstall
  ssi uninstall --purge --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkRoot(env, &o.Root); err != nil {
				return err
			}
			if o.Root == "/" {
				if !o.DryRun && bootedWithSSI() {
					return errors.New("uninstall: ssi is the init of this running system: boot the other entry first; nothing was changed")
				}
				o.Update = runUpdateGrub(env)
			}
			if o.Purge && !o.DryRun && !yes {
				if err := confirmPurge(env); err != nil {
					return err
				}
			}
			o.Out = env.Out
			return Uninstall(cmd.Context(), o)
		},
	}
	cmd.Annotations = manual("ssi-install(1)")
	f := cmd.Flags()
	f.BoolVarP(&o.DryRun, "dry-run", "n", false, "print every change, make none")
	f.StringVar(&o.Root, "root", "/", "uninstall from the system in `DIR`")
	f.BoolVar(&o.Purge, "purge", false, "also remove the state of the cluster, with its keys")
	f.BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// manual is what the man page says beside the help, as applet.Manual has it.
func manual(seeAlso string) map[string]string {
	const exit = "0 done, or there was nothing to do\n1 it is refused or failed, with the reason\n2 the command line makes no sense"
	return map[string]string{"exit-status": exit, "see-also": seeAlso}
}

// checkRoot refuses what is no root directory, and others than root on a machine
// that runs.
func checkRoot(env Env, root *string) error {
	abs, err := filepath.Abs(*root)
	if err != nil {
		return err
	}
	*root = abs
	info, err := os.Stat(abs)
	if err != nil {
		return env.Usage(fmt.Sprintf("--root: %v", err))
	}
	if !info.IsDir() {
		return env.Usage(fmt.Sprintf("--root %s: this is no directory", abs))
	}
	if abs == "/" && os.Geteuid() != 0 {
		return errors.New("only root can change this machine: use sudo; nothing was changed")
	}
	return nil
}

// program reads the file to install.
func program(path string) ([]byte, error) {
	if path == "" {
		exe, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find the path of this program: %w", err)
		}
		path = exe
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read the program: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("read the program: %s is no file of at most %d MiB", path, maxFile>>20)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the program: %w", err)
	}
	if !strings.HasPrefix(string(b), "\x7fELF") {
		return nil, fmt.Errorf("read the program: %s is no program for Linux", path)
	}
	return b, nil
}

// manPages reads the pages of section 1 in a directory.
func manPages(dir string) (map[string][]byte, error) {
	if dir == "" {
		return nil, nil
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil || len(paths) == 0 {
		return nil, fmt.Errorf("--man %s: there are no man pages (*.1)", dir)
	}
	pages := map[string][]byte{}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("--man: %w", err)
		}
		pages[filepath.Base(path)] = b
	}
	return pages, nil
}

// runUpdateGrub makes the boot menu of this machine; nil if it has no such
// program.
func runUpdateGrub(env Env) func(context.Context) error {
	if info, err := os.Stat(updateGrub); err != nil || info.Mode()&0o111 == 0 {
		return nil
	}
	return func(ctx context.Context) error {
		cmd := exec.CommandContext(ctx, updateGrub)
		cmd.Stdout, cmd.Stderr = env.Err, env.Err
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", updateGrub, err)
		}
		return nil
	}
}

// bootedWithSSI reports whether process 1 is our program.
func bootedWithSSI() bool {
	exe, err := os.Readlink("/proc/1/exe")
	return err == nil && strings.TrimSuffix(filepath.Base(exe), " (deleted)") == filepath.Base(Program)
}

// confirmPurge asks for the word.
func confirmPurge(env Env) error {
	if !env.Terminal {
		return env.Usage("--purge removes the keys of the cluster for ever and there is no terminal to ask at: say --yes if that is meant")
	}
	fmt.Fprintf(env.Err, "This removes the state and the keys of the cluster of this machine for ever.\nType purge to go on: ")
	line, err := bufio.NewReader(io.LimitReader(env.In, 100)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(line) != "purge" {
		return errors.New("uninstall: not confirmed; nothing was changed")
	}
	return nil
}
