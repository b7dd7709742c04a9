// Command ssi makes several Linux machines one system: one list of processes, one
// registry, one init that survives the machine it runs on. It is one program; the
// name it is started under, or its first argument, chooses a role or a command.
//
// This package is the wiring: the only one that imports everything, and that
// knows which implementation stands behind which interface.
package main

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"ssi/applet"
	pid1 "ssi/init"
	"ssi/init/boot"
	"ssi/lab"
	"ssi/vproc/procfs"
	"ssi/vproc/ptrace"
	"ssi/vproc/rexec"
	"ssi/vproc/spawn"
)

// version is set by the linker (see Makefile).
var version = "unknown"

func main() { os.Exit(run(os.Args)) }

func run(args []string) int {
	if status, ok := lab.RunRole(args); ok {
		return status
	}
	if pid1.ByKernel(args, func(name string) bool {
		return slices.ContainsFunc(table(), func(e applet.Entry) bool { return e.Name == name })
	}) {
		return runInit()
	}
	env := applet.System(args, version)
	env.Exec = execOn
	env.End = boot.EndMachine
	env.LocalProc = procfs.Local
	env.Bootstrap = bootstrap{version: version}
	return applet.Main(env, table())
}

// table is every role and command.
func table() []applet.Entry {
	role := func(name, short string, f func(args []string) int) applet.Entry {
		return applet.Entry{Name: name, Short: short, Group: applet.GroupRole, NoLink: true,
			Run: func(_ *applet.Env, args []string) int { return f(args) }}
	}
	entries := append(applet.Table(), applet.Entry{
		Name: "lab", Short: "run a cluster of several nodes on this machine", Group: applet.GroupTools, New: labCommand, NoLink: true,
	})
	entries = append(entries, installEntries()...)
	entries = append(entries,
		role("init", "process 1 of a node: starts and restarts the others", func([]string) int { return runInit() }),
		role("boot", "starts and ends the machine, for process 1", runBoot),
		role("getty", "serves a login on a console", func(args []string) int { return boot.RunGetty(roleLog("getty", "info"), loginSpace(), args) }),
		role("login", "lets a login on a console into the process space", func(args []string) int { return boot.RunLogin(roleLog("login", "info"), loginSpace(), args) }),
		role("initctl", "carries out shutdown(8) and reboot(8) of the distribution, and the power button", runInitctl),
		role("node", "the node daemon", func([]string) int { return runNode(version) }),
		role("bootfiles", "makes what other machines boot", runBootFiles),
		role("mount", "serves the clusterwide /proc", func([]string) int { return procfs.Run(roleLog("mount", "info")) }),
		role("spawn", "creates the processes of users", func([]string) int { return runSpawn() }),
		role(spawn.SessionRole, "leads the session of a terminal", spawn.RunSession),
		role(ptrace.SurrogateRole, "stands for a program that rexecve started on another node", runSurrogate),
	)
	return entries
}

// runInit is the role init.
func runInit() int {
	return pid1.Run(pid1.Options{
		Mount: []string{"mount"}, Boot: []string{"boot"}, Getty: []string{"getty"},
		Services: []pid1.Service{{Name: "initctl", Args: []string{"initctl"}}},
	})
}

// runSpawn is the role spawn.
func runSpawn() int {
	log := roleLog("spawn", "info")
	cfg, err := loadConfig()
	if err != nil {
		log.Error("start", "err", err)
		return 1
	}
	return spawn.Run(log, prepareUsers(log, cfg.StateDir))
}

func labCommand(env *applet.Env) *cobra.Command {
	return lab.Command(lab.Env{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Initramfs: describeInitramfs,
		Usage: func(text string) error { return applet.Usagef("%s", text) },
		Exit:  func(status int) error { return applet.StatusError(status) },
	})
}

// execOn runs a command on a node for the applets.
func execOn(ctx context.Context, r applet.ExecRequest) (int, error) {
	opts := rexec.Options{Node: r.Node, Argv: r.Argv, Path: r.Path, Stdout: r.Stdout, Stderr: r.Stderr, TTY: rexec.TTYNever}
	if len(r.Env) > 0 {
		opts.Env = append(os.Environ(), r.Env...)
	}
	if r.Attach {
		opts.Stdin, opts.Stdout, opts.Stderr, opts.TTY = os.Stdin, os.Stdout, os.Stderr, rexec.TTYAuto
		opts.Surrogate = len(r.Env) == 0 // else it wants another view, which this process does not have
	}
	status, err := rexec.Run(ctx, opts)
	var here *rexec.Here
	if errors.As(err, &here) {
		if err := os.Setenv("SSI_NODE", here.Node.String()); err != nil {
			return 0, err
		}
		return applet.Become(r.Argv, os.Environ())
	}
	if err == nil && r.Attach && status.Signal != unix.Signal(0) {
		status.Exit()
	}
	return status.Number(), err
}
