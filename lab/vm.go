package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/vm"
	"ssi/netboot/initramfs"
)

// VM says that the nodes of a lab are machines: QEMU without KVM. Node 1 gets
// kernel, initramfs and a disk from QEMU and founds the cluster; the others have nothing
// but a network interface and are booted by the cluster over the network.
type VM struct {
	Kernel  string `json:"kernel"`  // a bzImage; default the newest of Linux 6.12 or later in /boot
	Modules string `json:"modules"` // its lib/modules/VERSION; default the one beside the kernel's boot directory
	// Initramfs says what the machines have beside drivers and ssi: a shell at
	// least.
	Initramfs func() initramfs.Config `json:"-"`
}

const (
	maxVMs    = vm.MaxMachines
	vmMemory  = 512 // MiB of each machine
	vmSegment = "ic"
	// firstImage is the initramfs of node 1 and firstDisk its disk, in the directory
	// of the lab. The disk has its state, so that it comes back after a power cut.
	firstImage = "first.img"
	firstDisk  = "first.disk"
	firstLabel = "ssi-state"
	firstSize  = 512 << 20 // bytes; what is not written takes no room
	makeFS     = "mke2fs"
	// bootGiven is netboot.Given: the file made-of says that what node 1 boots the
	// others with (netboot/ in its state, see package netboot) is to be served as it
	// is. Making it takes an emulated processor a minute.
	bootGiven = "given\n"
)

// How to get a kernel for machines.
const kernelHelp = "Debian's is got without installing it by `apt-get download linux-image-6.12.*-cloud-amd64` (the name: `apt-cache search cloud-amd64`) and `dpkg -x FILE DIR`: then give --kernel DIR/boot/vmlinuz-VERSION"

// complete fills in the kernel and says what a lab of machines lacks.
func (v *VM) complete(nodes int) error {
	if nodes > maxVMs {
		return errno.New(errno.Invalid, "lab", 0, "%d nodes: a lab of machines has at most %d", nodes, maxVMs)
	}
	if v.Initramfs == nil {
		return errno.New(errno.Invalid, "lab", 0, "no description of the machines' files (VM.Initramfs)")
	}
	if err := vm.Available(vm.BIOS); err != nil {
		return errno.New(errno.Unavailable, "lab", 0, "machines cannot be emulated here: %w", err)
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		return errno.New(errno.Unavailable, "lab", 0, "the machines need a shell: install the package busybox-static (%w)", err)
	}
	if _, err := exec.LookPath(makeFS); err != nil {
		return errno.New(errno.Unavailable, "lab", 0, "node 1 needs a disk: install the package e2fsprogs (%w)", err)
	}
	if v.Kernel == "" {
		found, err := filepath.Glob("/boot/vmlinuz-*")
		if err != nil {
			return fmt.Errorf("lab: %w", err)
		}
		if v.Kernel = newestKernel(found); v.Kernel == "" {
			return errno.New(errno.NotFound, "lab", 0, "there is no kernel of Linux 6.12 or later in /boot for the machines: %s", kernelHelp)
		}
	}
	k, err := initramfs.KernelImage(v.Kernel)
	if err != nil {
		return errno.New(errno.Invalid, "lab", 0, "%w; %s", err, kernelHelp)
	}
	if v.Modules == "" {
		root := filepath.Dir(filepath.Dir(v.Kernel))
		for _, lib := range []string{"lib", "usr/lib"} { // Debian 12, Debian 13
			if dir := filepath.Join(root, lib, "modules", k.Version); v.Modules == "" && isDir(dir) {
				v.Modules = dir
			}
		}
		if v.Modules == "" {
			return errno.New(errno.NotFound, "lab", 0, "the modules of kernel %s are not in %s: say where they are with --modules", k.Version, filepath.Join(root, "lib/modules"))
		}
	}
	for _, path := range []*string{&v.Kernel, &v.Modules} { // the supervisor runs elsewhere
		if *path, err = filepath.Abs(*path); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	return nil
}

func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

// newestKernel is the file vmlinuz-VERSION of the latest Linux that is at least
// 6.12, or "".
func newestKernel(files []string) string {
	newest, best := "", []int{6, 12}
	for _, file := range files {
		v := versionOf(strings.TrimPrefix(filepath.Base(file), "vmlinuz-"))
		if slices.Compare(v, best) >= 0 {
			newest, best = file, v
		}
	}
	return newest
}

// versionOf is the numbers at the start of a version: 6.12.9+deb is 6, 12, 9.
func versionOf(text string) []int {
	var numbers []int
	for {
		end := 0
		for end < len(text) && text[end] >= '0' && text[end] <= '9' {
			end++
		}
		n, err := strconv.Atoi(text[:end])
		if err != nil {
			return numbers
		}
		numbers = append(numbers, n)
		if end == len(text) || text[end] != '.' {
			return numbers
		}
		text = text[end+1:]
	}
}

// pack makes the initramfs of node 1, and its disk, which holds what the others
// boot.
func (v *VM) pack(ctx context.Context, o *Options) error {
	dir := dirOf(o.Name)
	state := filepath.Join(dir, "state")
	c := v.Initramfs()
	c.Binary, c.Kernel, c.Tree, c.Classes = o.Binary, v.Kernel, v.Modules, []string{"vm"}
	others := filepath.Join(state, "netboot")
	if err := os.MkdirAll(others, 0o755); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if _, err := initramfs.Build(ctx, c, filepath.Join(others, "initrd.img")); err != nil {
		return fmt.Errorf("lab: initramfs: %w", err)
	}
	kernel, err := os.ReadFile(v.Kernel)
	if err == nil {
		err = os.WriteFile(filepath.Join(others, "vmlinuz"), kernel, 0o644)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(others, "made-of"), []byte(bootGiven), 0o644)
	}
	if err == nil {
		err = makeDisk(ctx, filepath.Join(dir, firstDisk), state)
	}
	if err == nil {
		err = os.RemoveAll(state)
	}
	if err != nil {
		return fmt.Errorf("lab: disk of node 1: %w", err)
	}
	c.Dirs = append(slices.Clone(c.Dirs), stateDir)
	c.Files = append(slices.Clone(c.Files),
		initramfs.File{Path: configDir + "/ssi.toml", Data: []byte(firstConfig(o.Nodes))},
		initramfs.File{Path: "/etc/hostname", Data: []byte(Host(1) + "\n")},
		initramfs.File{Path: "/etc/fstab", Data: []byte("LABEL=" + firstLabel + " " + stateDir + " ext4 defaults 0 0\n")})
	if _, err := initramfs.Build(ctx, c, filepath.Join(dir, firstImage)); err != nil {
		return fmt.Errorf("lab: initramfs of node 1: %w", err)
	}
	return nil
}

// makeDisk makes a disk with a file system that has what is in a directory.
func makeDisk(ctx context.Context, disk, from string) error {
	if err := vm.CreateDisk(disk, firstSize); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, makeFS, "-q", "-F", "-t", "ext4", "-L", firstLabel, "-d", from, disk).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", makeFS, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// firstConfig is the configuration of node 1. The others take all they need from
// their kernel command line. What the daemons log stands between the output of
// commands on the console, so it is little. In a lab of two, node 1 alone votes:
// two voters would have no majority when one of them is gone.
func firstConfig(nodes int) string {
	voters := 3
	if nodes < 3 {
		voters = 1
	}
	return fmt.Sprintf(`name = %q
max_voters = %d
log_level = "error"

[[interface]]
mac = %q
name = "ic0"
address = ["%s/24"]
role = "interconnect"

[netboot]
enable = true
range = "%s100-%s199"
unknown = "wait"
cmdline = "console=ttyS0 ssi.console=shell ssi.log_level=error"
`, Host(1), voters, vmMAC(1), Addr(1), subnet, subnet)
}

// vmMAC is the address of the interface of node n.
func vmMAC(n id.Node) string { return fmt.Sprintf("52:54:00:85:%02x:%02x", byte(n>>8), byte(n)) }

// machines reports whether the nodes of a lab are machines.
func (l *Lab) machines() bool {
	raw, err := os.ReadFile(filepath.Join(dirOf(l.Name), optionsFile))
	var o Options
	return err == nil && json.Unmarshal(raw, &o) == nil && o.VM != nil
}
