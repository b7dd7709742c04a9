package boot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/config"
	"ssi/internal/keeper"
	"ssi/internal/proc"
)

// The arguments of the role besides none, which starts the machine.
const (
	ArgSave      = "save"      // before the end: time and random seed
	ArgEnd       = "end"       // the last role: file systems
	ArgEmergency = "emergency" // only the shell; another argument says why
)

// PID1 is what the role asks of process 1; *keeper.Client is it.
type PID1 interface {
	// SwitchRoot has NewRoot made the root, and this program of it executed.
	SwitchRoot(program string) error
	// Watchdog has the hardware watchdog reset the machine when process 1 is
	// silent for so long.
	Watchdog(time.Duration) error
	// Shutdown ends the machine.
	Shutdown(keeper.Ending) error
}

// Options are what the role needs. What is nil is left out, or as said.
type Options struct {
	Out       io.Writer     // the console; default: standard output
	Console   string        // the terminal of the emergency shell; default /dev/console
	RunDir    string        // default /run/ssi
	StateDir  string        // default /var/lib/ssi
	Hostname  string        // instead of /etc/hostname
	BuildTime time.Time     // of this binary: the clock is never earlier
	Swap      []string      // swap areas besides those of /etc/fstab: as its first field
	Watchdog  time.Duration // unless ssi.watchdog= says something else; 0: off
	PID1      PID1          // default: the keeper's connection
	Log       *slog.Logger  // default: standard error

	// Coldplug loads the drivers of the devices that the start needs, among them disks
	// or not; the result is a line for people.
	Coldplug func(ctx context.Context, disks bool) (result string, err error)
	// Load loads a module by name or alias.
	Load func(ctx context.Context, name string) error
	// Device waits until there is the device that fstab(5) names (UUID=…, LABEL=…,
	// PARTUUID=…, /dev/…) and returns its path. Default: a path, or the links in
	// /dev/disk.
	Device func(ctx context.Context, spec string, say func(text string)) (path string, err error)
	// FSType is the type of the file system on a device. Default: all types
	// are tried.
	FSType func(device string) (string, error)
	// Network configures the interfaces and returns when they can be used.
	Network func(ctx context.Context, say func(text string)) (result string, err error)
}

// boot is the state of the role; steps run one at a time.
type boot struct {
	o       Options
	log     *slog.Logger
	path    []string // where programs are
	cmdline CommandLine
	fstab   []Mount
	root    struct { // of root=
		device string
		kinds  []string
	}
}

// Run is the role boot; it returns the exit status: 0 when PID 1 may go on.
func Run(o Options, args []string) int {
	b := newBoot(o)
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	switch {
	case len(args) == 0:
		return b.start(ctx)
	case len(args) == 1 && args[0] == ArgSave:
		return b.save()
	case len(args) == 1 && args[0] == ArgEnd:
		return b.end()
	case len(args) == 2 && args[0] == ArgEmergency:
		b.emergency(ctx, "boot", errors.New(args[1]))
		return 0
	}
	b.log.Error("boot: this role is started by PID 1 only", "op", "boot")
	return 2
}

func newBoot(o Options) *boot {
	if o.Out == nil {
		o.Out = os.Stdout
	}
	if o.Console == "" {
		o.Console = "/dev/console"
	}
	if o.RunDir == "" {
		o.RunDir = "/run/ssi"
	}
	if o.StateDir == "" {
		o.StateDir = "/var/lib/ssi"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return &boot{o: o, log: o.Log, path: programDirs()}
}

// start carries out the table of the stage this machine is in.
func (b *boot) start(ctx context.Context) int {
	if b.o.PID1 == nil {
		k, err := keeper.Open(b.log, func(proc.Exit) {})
		if err != nil {
			b.log.Error("boot", "op", "boot", "err", err)
			return 1
		}
		defer func() { _ = k.Close() }()
		b.o.PID1 = k
	}
	if err := os.MkdirAll(b.o.RunDir, 0o755); err != nil {
		b.log.Warn("no report of the start", "op", "boot", "err", err)
	}
	text, err := readLimited("/proc/cmdline", MaxCommandLine)
	if err != nil {
		b.log.Error("kernel command line", "op", "boot", "err", err)
	}
	b.cmdline = ParseCommandLine(text)
	stage, table := initramfsStage, b.initramfs()
	if !inMemory() || rootSpec(b.cmdline) == "" {
		b.readFstab()
		stage, table = systemStage, b.system()
	}
	r := &runner{
		out: b.o.Out, quiet: b.cmdline.Has("quiet"), now: sinceKernel, emergency: b.emergency,
		report: Report{Stage: stage, State: Running, Phases: b.earlier(stage)},
		save: func(report Report) {
			if err := report.write(b.o.RunDir); err != nil {
				b.log.Warn("report of the start", "op", "boot", "err", err)
			}
		},
	}
	if b.cmdline.Has("emergency") || b.cmdline.Has("ssi.emergency") {
		b.emergency(ctx, "boot", errors.New("the kernel command line asks for a shell"))
	}
	if r.run(ctx, table) {
		_, _ = fmt.Fprintf(b.o.Out, "[%8.2f] boot: done\r\n", sinceKernel().Seconds())
	}
	return 0
}

func (b *boot) readFstab() {
	text, err := readLimited("/etc/fstab", maxFstab)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.log.Error("nothing of /etc/fstab is mounted", "op", "boot", "err", err)
	}
	var errs []error
	b.fstab, errs = ParseFstab(text)
	for _, err := range errs {
		b.log.Error("fstab", "op", "boot", "err", err)
	}
}

// initramfs is the table of a machine that goes on in another root. The watchdog
// is left to the init there, which may be a foreign one.
func (b *boot) initramfs() []step {
	return []step{
		{name: "modules", what: "drivers of the devices", limit: time.Minute, skip: absent(b.o.Coldplug == nil), do: b.coldplug(true)},
		{name: "root-device", what: "device of the root file system", fatal: true, limit: rootLimit(b.cmdline), do: b.findRoot},
		{name: "clock", what: "not before this binary was built", limit: 5 * time.Second, do: b.setClock},
		{name: "root-check", what: "check of the root file system", fatal: true, do: b.checkNewRoot},
		{name: "root", what: "the root file system", fatal: true, limit: time.Minute, do: b.mountRoot},
	}
}

// system is the table of a machine in its root. fsck shows its progress and has no
// limit; what a step waits for is shown.
func (b *boot) system() []step {
	nothing := func(list []Mount, remote bool) func() string {
		return func() string {
			for _, m := range list {
				if m.wanted() && m.remote() == remote {
					return ""
				}
			}
			return "none in /etc/fstab"
		}
	}
	memory := func() string {
		if inMemory() {
			return "the root is in memory"
		}
		return ""
	}
	return []step{
		{name: "modules", what: "drivers of the devices", limit: time.Minute, skip: absent(b.o.Coldplug == nil), do: b.coldplug(b.needsDisks())},
		{name: "memory", what: "enough memory for a node", limit: 5 * time.Second, do: b.checkMemory},
		{name: "watchdog", what: "hardware watchdog", limit: 10 * time.Second, skip: b.skipWatchdog, do: b.watchdog},
		{name: "hostname", what: "name of the machine", limit: 5 * time.Second, do: b.setHostname},
		{name: "clock", what: "not before the last shutdown", limit: 5 * time.Second, do: b.setClock},
		{name: "sysctl", what: "kernel settings", limit: 30 * time.Second, do: b.sysctls},
		{name: "root-check", what: "check of the root file system", fatal: true, skip: b.skipRootCheck, do: b.checkRoot},
		{name: "root", what: "root file system for writing", needs: []string{"root-check"}, fatal: true, limit: time.Minute, skip: memory, do: b.remountRoot},
		{name: "runtime", what: "links and files in /dev and /run", limit: 5 * time.Second, do: b.makeRuntime},
		{name: "mounts", what: "file systems of /etc/fstab", needs: []string{"root"}, fatal: true, skip: nothing(b.fstab, false),
			do: func(ctx context.Context, say func(string)) (string, error) { return b.mountAll(ctx, false, say) }},
		{name: "entropy", what: "random seed", needs: []string{"root"}, limit: 10 * time.Second, do: b.loadSeed},
		{name: "swap", what: "swap areas", limit: deviceTime, do: b.swapOn},
		{name: "network", what: "interfaces and addresses", limit: time.Minute, skip: absent(b.o.Network == nil), do: b.o.Network},
		{name: "net-mounts", what: "file systems over the network", needs: []string{"network"}, skip: nothing(b.fstab, true),
			do: func(ctx context.Context, say func(string)) (string, error) { return b.mountAll(ctx, true, say) }},
	}
}

func (b *boot) coldplug(disks bool) func(context.Context, func(string)) (string, error) {
	return func(ctx context.Context, _ func(string)) (string, error) { return b.o.Coldplug(ctx, disks) }
}

// needsDisks reports whether something of the start in this root is on a disk.
func (b *boot) needsDisks() bool {
	swap, err := swapAreas(b.fstab, b.o.Swap, b.cmdline)
	return !inMemory() || len(b.fstab) > 0 || len(swap) > 0 || err != nil
}

func absent(is bool) func() string {
	if is {
		return func() string { return "not part of this program" }
	}
	return nil
}

func (b *boot) reboot() error { return b.o.PID1.Shutdown(keeper.Reboot) }

// watchdogTime is ssi.watchdog= in seconds or as a duration, "off", or what the
// configuration says.
func watchdogTime(c CommandLine, configured time.Duration) (time.Duration, error) {
	v, ok := c.Get("ssi.watchdog")
	switch {
	case !ok:
		return configured, nil
	case v == "off" || v == "0":
		return 0, nil
	case strings.Trim(v, "0123456789") == "":
		v += "s"
	}
	t, err := time.ParseDuration(v)
	if err != nil || t < config.MinWatchdog || t > config.MaxWatchdog {
		return 0, fmt.Errorf("ssi.watchdog=%s: it is a time from %s to %s, or off", cut(v), config.MinWatchdog, config.MaxWatchdog)
	}
	return t, nil
}

func (b *boot) skipWatchdog() string {
	if t, err := watchdogTime(b.cmdline, b.o.Watchdog); err == nil && t == 0 {
		return "not asked for"
	}
	return ""
}

func (b *boot) watchdog(ctx context.Context, _ func(string)) (string, error) {
	t, err := watchdogTime(b.cmdline, b.o.Watchdog)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join("/dev", "watchdog")); errors.Is(err, fs.ErrNotExist) {
		name := "softdog"
		if b.o.Load == nil {
			return "", errors.New("there is no /dev/watchdog")
		}
		if err := b.o.Load(ctx, name); err != nil {
			return "", fmt.Errorf("there is no /dev/watchdog, and module %s: %w", name, err)
		}
	}
	if err := b.o.PID1.Watchdog(t); err != nil {
		return "", err
	}
	return t.String(), nil
}
