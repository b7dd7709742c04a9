package applet

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ssi/init/boot"
	"ssi/internal/api"
	"ssi/internal/keeper"
)

// endEntries are the commands of sysvinit and systemd that end a machine.
func endEntries() []Entry {
	return []Entry{
		{Name: "poweroff", Short: "end this machine and switch it off", Group: GroupNode, New: newPowerOff, Stock: true},
		{Name: "reboot", Short: "end this machine and start it anew", Group: GroupNode, New: newReboot, Stock: true},
		{Name: "halt", Short: "end this machine and leave it on", Group: GroupNode, New: newHalt, Stock: true},
		{Name: "shutdown", Short: "end this machine, now or later", Group: GroupNode, New: newShutdownNow, Stock: true},
	}
}

const endLong = `
The node leaves the cluster, every process gets SIGTERM and later SIGKILL,
and the file systems are left clean.

It asks process 1, which may be another init; no node daemon is needed. -f ends
the machine at once instead: only what is written to the disks stays. Only root
may do it.`

func newPowerOff(env *Env) *cobra.Command {
	return newEnd(env, keeper.PowerOff, "poweroff", "end this machine and switch it off",
		"poweroff ends this machine in order and switches it off."+endLong)
}

func newHalt(env *Env) *cobra.Command {
	return newEnd(env, keeper.Halt, "halt", "end this machine and leave it on",
		"halt ends this machine in order and leaves it on, doing nothing."+endLong)
}

func newEnd(env *Env, e keeper.Ending, name, short, long string) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: name + " [-f]", Short: short, Long: long,
		Example: "  " + name + "       in order\n  " + name + " -f    when process 1 does not answer",
		Args:    Args(0, 0),
		RunE:    func(*cobra.Command, []string) error { return env.End(e, force) },
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "at once, without asking process 1")
	return Manual(cmd, exitPlain, "shutdown(1)", "clusternode_shutdown(1)")
}

func newReboot(env *Env) *cobra.Command {
	var force, kexec bool
	var kernel, initrd, line string
	cmd := &cobra.Command{
		Use:   "reboot [-f] [-k | --kernel FILE [--initrd FILE] [--append TEXT]]",
		Short: "end this machine and start it anew",
		Long: "reboot ends this machine in order and starts it anew." + endLong + `

-k starts the kernel that kexec(8) has loaded, without the firmware, which takes
long on a real machine; --kernel loads one before. Without --append it gets the
command line of the running kernel.`,
		Example: `  reboot
  reboot --kernel /boot/vmlinuz-6.12 --initrd /boot/initrd.img-6.12`,
		Args: Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case kernel != "":
				if err := boot.LoadKernel(kernel, initrd, line); err != nil {
					return err
				}
			case cmd.Flags().Changed("initrd") || cmd.Flags().Changed("append"):
				return Usagef("--initrd and --append go with --kernel")
			case kexec && !boot.KernelLoaded():
				return fmt.Errorf("no kernel is loaded: give one with --kernel, or load it with kexec(8)")
			case !kexec:
				return env.End(keeper.Reboot, force)
			}
			return env.End(keeper.Kexec, force)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&force, "force", "f", false, "at once, without asking process 1")
	f.BoolVarP(&kexec, "kexec", "k", false, "start the kernel that is loaded already")
	f.StringVar(&kernel, "kernel", "", "load this kernel `FILE` and start it")
	f.StringVar(&initrd, "initrd", "", "its initramfs `FILE`")
	f.StringVar(&line, "append", "", "its command line `TEXT`")
	exclusive(cmd, "kexec", "kernel")
	return Manual(cmd, exitPlain, "shutdown(1)", "clusternode_shutdown(1)")
}

func newShutdownNow(env *Env) *cobra.Command {
	var power, halt, reboot, cancel bool
	cmd := &cobra.Command{
		Use:   "shutdown [-P|-H|-r|-c] [WHEN [MESSAGE…]]",
		Short: "end this machine, now or later",
		Long: `shutdown ends this machine in order and switches it off (-P, -h, or nothing),
leaves it on (-H), or starts it anew (-r). WHEN is now, +MINUTES or HH:MM; without
it, it is +1. Until then the node takes no new work, which the node daemon sees to;
-c cancels it. MESSAGE goes to the history as the cause. Only root may do it.`,
		Example: `  shutdown -r now
  shutdown +10 new power supply
  shutdown -c`,
		Args: Args(0, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, params := keeper.PowerOff, api.ShutdownParams{Action: api.ActionPowerOff, Delay: time.Minute}
			switch {
			case cancel && len(args) > 0:
				return Usagef("-c takes no time")
			case cancel:
				params = api.ShutdownParams{Action: api.ActionCancel}
			case halt:
				e, params.Action = keeper.Halt, api.ActionHalt
			case reboot:
				e, params.Action = keeper.Reboot, api.ActionReboot
			}
			if len(args) > 0 {
				delay, err := shutdownTime(args[0], env.Now())
				if err != nil {
					return err
				}
				params.Delay, params.Message = delay, strings.Join(args[1:], " ")
			}
			if params.Delay == 0 && !cancel {
				return env.End(e, false)
			}
			res, err := Call[api.ShutdownReply](cmd.Context(), env, api.MethodClusterShutdown, params)
			switch {
			case err != nil:
				return err
			case cancel:
				_, err = fmt.Fprintln(env.Stdout, "The shutdown is cancelled.")
			default:
				_, err = fmt.Fprintf(env.Stdout, "This machine: %s at %s; `shutdown -c` cancels.\n", params.Action, res.At.In(time.Local).Format("2006-01-02 15:04"))
			}
			return err
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.BoolVarP(&power, "poweroff", "P", false, "switch it off (default)")
	f.BoolVarP(&power, "off", "h", false, "as -P")
	f.BoolVarP(&halt, "halt", "H", false, "leave it on")
	f.BoolVarP(&reboot, "reboot", "r", false, "start it anew")
	f.BoolVarP(&cancel, "cancel", "c", false, "cancel a shutdown that waits for its time")
	f.Bool("help", false, "help for shutdown")
	exclusive(cmd, "poweroff", "halt", "reboot", "cancel")
	exclusive(cmd, "off", "halt", "reboot", "cancel")
	return Manual(cmd, exitPlain, "poweroff(1)", "reboot(1)", "halt(1)", "clusternode_shutdown(1)")
}
