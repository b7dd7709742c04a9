package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ssi/applet"
	"ssi/cluster"
	"ssi/internal/api"
	"ssi/netboot"
	"ssi/netboot/initramfs"
	"ssi/netboot/machine"
)

// newNetboot makes the service that boots other machines. c is set before it runs.
func (n *nodeRole) newNetboot(c *cluster.Cluster, table *machine.Table) *netboot.Service {
	table.Classes = initramfs.Classes()
	return netboot.New(netboot.Config{
		Settings: n.cfg.Netboot, Dir: filepath.Join(n.cfg.StateDir, bootFilesDir),
		Make: makeBootFiles, Address: n.bootAddress,
		Registry: c.Registry(), Watch: c.Registry().Watch, Table: table,
		Alarm: func(text string) { n.log.Error("a machine was refused", "op", "admission", "why", text) },
		Calm: func(ctx context.Context) {
			calm(ctx, func() <-chan struct{} { _, changed := c.Members().Get(); return changed })
		},
		Self: c.Self(), Capable: n.cfg.Capable, Log: n.log,
	})
}

const (
	// calmTime is for how long no node may have come or gone, to call it calm.
	calmTime = 5 * time.Second
	// stormTime is how long calm waits at most.
	stormTime = time.Minute
)

// calm waits until the membership has not changed for a while; changed gives a channel
// that is closed with the next change.
func calm(ctx context.Context, changed func() <-chan struct{}) {
	end := time.After(stormTime)
	for {
		select {
		case <-changed():
		case <-time.After(calmTime):
			return
		case <-end:
			return
		case <-ctx.Done():
			return
		}
	}
}

// bootFilesDir is where the files are that machines boot, below the state
// directory.
const bootFilesDir = "netboot"

// makeBootFiles has the role bootfiles do its work.
func makeBootFiles(ctx context.Context, class string) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "bootfiles")
	if class != "" {
		cmd.Args = append(cmd.Args, class)
	}
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("ssi bootfiles: %w; its log says why", err)
	}
	return nil
}

// runBootFiles is the role bootfiles: it makes what machines boot, or what those of
// the hardware class args do, with the processor time that nobody else wants.
func runBootFiles(args []string) int {
	log := roleLog("bootfiles", "info")
	const nicest = 19
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, nicest); err != nil {
		log.Warn("priority", "err", err)
	}
	cfg, err := loadConfig()
	if err != nil {
		log.Error("bootfiles", "err", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	class := strings.Join(args, " ")
	began := time.Now()
	built, news, err := netboot.MakeFiles(ctx, filepath.Join(cfg.StateDir, bootFilesDir), "/", cfg.Netboot, class, describeInitramfs())
	if err != nil {
		log.Error("bootfiles", "err", err)
		return 1
	}
	if news {
		log.Info("initramfs made", "class", class, "kernel", built.Version, "bytes", built.Size, "modules", len(built.Modules), "after", time.Since(began))
	}
	return 0
}

// bootAddress is where machines are booted: on an interface, or on that of the
// first interconnect.
func (n *nodeRole) bootAddress(name string) (string, netip.Prefix, error) {
	if name != "" {
		return netboot.AddressOf(name)
	}
	own, err := ownAddr("", n.cfg)
	if err != nil {
		return "", netip.Prefix{}, err
	}
	addr, err := netip.ParseAddrPort(own)
	if err != nil {
		return "", netip.Prefix{}, err
	}
	return netboot.InterfaceOf(addr.Addr())
}

// describeInitramfs says what the root of a diskless node has beside drivers:
// this binary under the names of its commands, and a shell. It is a tmpfs as long
// as there is no cluster file system: that will be mounted by the role boot.
func describeInitramfs() initramfs.Config {
	exe, err := os.Executable()
	if err != nil {
		exe = "/sbin/ssi"
	}
	c := initramfs.Config{
		Binary:  exe,
		Classes: []string{"vm", "generic"},
		Dirs:    []string{"/etc/ssi", "/root", "/tmp", "/var/lib/ssi", "/var/tmp", "/usr/bin", "/usr/sbin", "/bin"},
		Files: []initramfs.File{
			{Path: "/etc/passwd", Data: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n")},
			{Path: "/etc/group", Data: []byte("root:x:0:\ntty:x:5:\nnogroup:x:65534:\n")},
			{Path: "/etc/hosts", Data: []byte("127.0.0.1 localhost\n::1 localhost\n")},
		},
	}
	for _, name := range applet.Links(table(), true) {
		c.Links = append(c.Links, initramfs.Link{Path: "/usr/bin/" + name, Target: "/sbin/ssi"})
	}
	const busybox, bash = "/bin/busybox", "/bin/bash"
	utilities := busyboxNames(busybox)
	for _, name := range utilities {
		c.Links = append(c.Links, initramfs.Link{Path: "/bin/" + name, Target: "busybox"})
	}
	if utilities != nil {
		c.Programs = append(c.Programs, initramfs.Program{Source: busybox})
		// The kernel calls it for what it misses: fs-ext4, net-pf-10.
		c.Links = append(c.Links, initramfs.Link{Path: "/sbin/modprobe", Target: busybox})
	}
	if _, err := os.Stat(bash); err == nil {
		c.Programs = append(c.Programs, initramfs.Program{Source: bash})
		if !slices.Contains(utilities, "sh") {
			c.Links = append(c.Links, initramfs.Link{Path: "/bin/sh", Target: "bash"})
		}
	}
	return c
}

// busyboxNames lists the utilities that a busybox has; nil if there is none.
func busyboxNames(path string) []string {
	out, err := exec.Command(path, "--list").Output()
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(strings.Fields(string(out)), func(name string) bool {
		return name == "busybox" || name == "bash" || strings.Contains(name, "/")
	})
}

// listMachines is the table of machines, as far as it can be read.
func (p *parts) listMachines() []api.MachineInfo {
	list, err := p.machines.List()
	if err != nil {
		p.n.log.Warn("the table of machines cannot be read", "op", "status", "err", err)
	}
	return list.Machines
}
