package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ssi/init/boot"
	"ssi/internal/config"
	"ssi/internal/kmod"
	"ssi/internal/netconf"
	"ssi/netboot/machine"
)

const (
	// carrierTime is how often a machine whose network does not come says what it
	// waits for.
	carrierTime = 5 * time.Second
	// settleTime is how long drivers that a node does not need wait for it to serve.
	settleTime = time.Minute
	// clusterParam is the kernel parameter of a machine that was booted over the
	// network: the URL of the node that booted it.
	clusterParam = "ssi.cluster"
)

// kernelParams are the words of the kernel command line.
func kernelParams() []string {
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil
	}
	return config.Words(string(b))
}

// netbootedFrom is the URL of the node that booted this machine, or "".
func netbootedFrom(words []string) string {
	url := ""
	for _, word := range words {
		if value, ok := strings.CutPrefix(word, clusterParam+"="); ok {
			url = strings.TrimSuffix(value, "/")
		}
	}
	return url
}

// loadConfig is the configuration of this machine: its file or, where it was
// booted over the network and has none, its kernel command line.
func loadConfig() (config.Config, error) {
	words := kernelParams()
	if _, err := os.Stat(config.Path); err != nil && ownsMachine() && netbootedFrom(words) != "" {
		return config.FromParams(words)
	}
	return config.Load(config.Path)
}

// ownsMachine reports whether ssi is the init of this machine, so that its
// devices, network and clock are ours: PID 1 of the first PID namespace, whose
// inode number is PROC_PID_INIT_INO of the kernel's proc_ns.h, runs this binary.
func ownsMachine() bool {
	ns, err := os.Readlink("/proc/self/ns/pid")
	if err != nil || ns != "pid:[4026531836]" {
		return false
	}
	one, err1 := os.Stat("/proc/1/exe")
	own, err2 := os.Stat("/proc/self/exe")
	return err1 == nil && err2 == nil && os.SameFile(one, own)
}

// newLoader makes the loader of the running kernel's modules.
func newLoader() (*kmod.Loader, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, fmt.Errorf("uname: %w", err)
	}
	index, err := kmod.Open(filepath.Join("/lib/modules", unix.ByteSliceToString(u.Release[:])))
	if err != nil {
		return nil, err
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil, err
	}
	rules, err := kmod.ReadRules(kmod.RuleDirs(), string(cmdline))
	if err != nil {
		return nil, err
	}
	return kmod.NewLoader(index, rules, kmod.NewSystem("/sys")), nil
}

// roleLog is the log of a role: where ssi is the init of the machine the kernel's,
// else standard error. news are messages that the console shows too, as it does
// warnings and errors.
func roleLog(role, level string, news ...string) *slog.Logger {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		l = slog.LevelInfo // config has checked it; a role without configuration logs plainly
	}
	return boot.RoleLog(role, l, news...)
}

// consoleNews are the messages of the node daemon that who stands at the console
// waits for.
func consoleNews() []string {
	return []string{"admission", "a machine is admitted", "joined", "serving", "transition", "init holder", "booting machines"}
}

// buildTime is when the source of this binary was committed, or zero if it was built
// without that.
func buildTime() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	for _, s := range info.Settings {
		if t, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil {
			return t
		}
	}
	return time.Time{}
}

// runBoot is the role boot.
func runBoot(args []string) int {
	log := roleLog("boot", "info")
	disks := kmod.Disks{Sys: "/sys", Dev: "/dev"}
	loader := sync.OnceValues(newLoader)
	cfg, err := loadConfig()
	if err != nil { // the machine starts all the same: who repairs the file needs it
		log.Error("the start goes on without the configuration", "op", "boot", "err", err)
		cfg = config.Default()
	}
	return boot.Run(boot.Options{
		Log: log, StateDir: cfg.StateDir, BuildTime: buildTime(), Hostname: cfg.Machine.Hostname, Watchdog: cfg.Machine.WatchdogTime(), Swap: cfg.Machine.Swap,
		Coldplug: func(ctx context.Context, needsDisks bool) (string, error) {
			l, err := loader()
			if err != nil {
				return "", err
			}
			urgent := kmod.Urgent
			if !needsDisks {
				urgent = kmod.UrgentWithoutDisks
			}
			report, err := l.Coldplug(ctx, disks.Sys, urgent)
			for _, f := range report.Failed {
				level := slog.LevelWarn
				if errors.Is(f.Err, unix.ENODEV) { // the driver looked, and it is not its device
					level = slog.LevelInfo
				}
				log.Log(ctx, level, "module", "op", "coldplug", "module", f.Module, "for", f.For, "err", f.Err)
			}
			links := kmod.Links{Disks: disks}
			return report.Summary(), errors.Join(err, links.Update())
		},
		Load: func(_ context.Context, name string) error {
			l, err := loader()
			if err == nil {
				_, err = l.Load(name)
			}
			return err
		},
		Device: func(ctx context.Context, name string, _ func(string)) (string, error) {
			spec, err := kmod.ParseSpec(name)
			if err != nil {
				return "", err
			}
			events, err := kmod.Listen()
			if err != nil {
				return "", err
			}
			defer func() { _ = events.Close() }()
			disk, err := disks.Wait(ctx, spec, events)
			return filepath.Join(disks.Dev, disk.Name), err
		},
		FSType: func(device string) (string, error) {
			spec, err := kmod.ParseSpec(device)
			if err != nil {
				return "", err
			}
			disk, found, err := disks.Find(spec)
			if err == nil && !found {
				err = fmt.Errorf("%s: there is no such disk", device)
			}
			return disk.FS.Type, err
		},
	}, args)
}

// ownMachine is what the node daemon does for a machine whose init is ssi: its
// network, and the drivers of devices that appear.
type ownMachine struct {
	log    *slog.Logger
	net    *netconf.Manager
	cancel context.CancelFunc
	settle context.CancelFunc // the node serves: there is time for the drivers that can wait
	wg     sync.WaitGroup
}

// openMachine configures the network of this machine and watches its devices. It
// is nil where another init does that.
func openMachine(cfg config.Config, log *slog.Logger, inUse func() []netip.Addr) (*ownMachine, error) {
	if !ownsMachine() {
		return nil, nil
	}
	loader := sync.OnceValues(newLoader) // reading the index takes a slow machine a while
	o := netconf.Options{Interfaces: cfg.Interfaces, Interconnects: cfg.Interconnects(), ResolvConf: "/etc/resolv.conf", InUse: inUse, Log: log}
	if name, err := nodeName(cfg); err == nil {
		o.Host = name
	}
	o.LoadModule = func(name string) error {
		l, err := loader()
		if err == nil {
			_, err = l.Load(name)
		}
		return err
	}
	manager, err := netconf.New(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	settled, settle := context.WithTimeout(ctx, settleTime)
	m := &ownMachine{log: log, net: manager, cancel: cancel, settle: settle}
	m.wg.Go(func() { manager.Run(ctx) })
	events, err := kmod.Listen()
	if err != nil {
		log.Warn("devices that appear get no drivers", "op", "kmod", "err", err)
		return m, nil
	}
	hotplug := kmod.Hotplug{Loader: loader, Events: events, Settled: settled.Done(), Links: &kmod.Links{Disks: kmod.Disks{Sys: "/sys", Dev: "/dev"}}, Sys: "/sys", Log: log}
	m.wg.Go(func() {
		defer func() { _ = events.Close() }()
		if err := hotplug.Run(ctx); err != nil {
			log.Error("devices that appear get no drivers", "op", "kmod", "err", err)
		}
	})
	return m, nil
}

// settled tells that the node serves.
func (m *ownMachine) settled() {
	if m != nil {
		m.settle()
	}
}

// close leaves addresses and modules as they are: a daemon that is started anew
// goes on with them.
func (m *ownMachine) close() {
	if m == nil {
		return
	}
	m.cancel()
	m.wg.Wait()
	m.net.Close()
}

// wait waits until the nodes can talk, and says what it waits for.
func (m *ownMachine) wait(ctx context.Context) error {
	if m == nil {
		return nil
	}
	for {
		try, cancel := context.WithTimeout(ctx, carrierTime)
		err := m.net.Wait(try)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		m.log.Warn("waiting for the network", "err", err)
	}
}

// bootMAC is the interface that this machine booted from: as the boot loader told,
// or the one whose boot the cluster at url saw; that is then the interconnect.
func (n *nodeRole) bootMAC(ctx context.Context, url string) (string, error) {
	for _, i := range n.cfg.Interfaces {
		if i.MAC != "" {
			return i.MAC, nil
		}
	}
	mac, err := machine.Which(ctx, url, func(text string) {
		n.log.Warn("looking for the interface that this machine booted from", "op", "admission", "by", url, "why", text)
	})
	if err == nil {
		n.cfg.Interfaces = append(n.cfg.Interfaces, config.Interface{MAC: mac, Role: config.RoleInterconnect})
	}
	return mac, err
}
