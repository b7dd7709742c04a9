package main

import (
	"net/netip"
	"os"
	"path/filepath"

	"ssi/applet"
	"ssi/cluster"
	"ssi/internal/config"
	"ssi/netboot"
	"ssi/netboot/initramfs"
	"ssi/netboot/machine"
)

// newNetboot makes the service that boots other machines. c is set before it runs.
func (n *nodeRole) newNetboot(c *cluster.Cluster, table *machine.Table) *netboot.Service {
	return netboot.New(netboot.Config{
		Settings: n.cfg.Netboot, Dir: filepath.Join(n.cfg.StateDir, "netboot"),
		Describe: describeInitramfs,
		Address:  n.bootAddress,
		Registry: c.Registry(), Watch: c.Registry().Watch, Table: table,
		Alarm: func(text string) { n.log.Error("a machine was refused", "op", "admission", "why", text) },
		Self:  c.Self(), Capable: n.cfg.Capable, Log: n.log,
	})
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
func describeInitramfs(config.Netboot) initramfs.Config {
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
	shell := false
	if _, err := os.Stat("/bin/busybox"); err == nil {
		c.Programs = append(c.Programs, initramfs.Program{Source: "/bin/busybox"})
		c.Links = append(c.Links, initramfs.Link{Path: "/bin/sh", Target: "busybox"})
		shell = true
	}
	if _, err := os.Stat("/bin/bash"); err == nil {
		c.Programs = append(c.Programs, initramfs.Program{Source: "/bin/bash"})
		if !shell {
			c.Links = append(c.Links, initramfs.Link{Path: "/bin/sh", Target: "bash"})
		}
	}
	return c
}
