package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ssi/internal/vm"
	"ssi/internal/vmtest"
	"ssi/netboot/initramfs"
)

// tool runs a program of this computer.
func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

// TestMachineWithBadDisk: whatever is wrong with the disk of the root, a shell
// says why, and when the cause is gone, the start goes on from there.
func TestMachineWithBadDisk(t *testing.T) {
	n := vmtest.New(t, 1)
	kernel := vmtest.CloudKernel(t)
	dir := t.TempDir()
	initrd, garbage, broken := filepath.Join(dir, "initrd"), filepath.Join(dir, "garbage"), filepath.Join(dir, "broken")
	c := initramfs.Config{
		Binary: vmtest.Binary(t), Tree: kernel.Modules, Classes: []string{"vm"}, Compress: initramfs.None,
		Programs: []initramfs.Program{{Source: "/bin/busybox"}, {Source: "/sbin/e2fsck", Path: "/sbin/fsck.ext4"}},
	}
	if _, err := initramfs.Build(t.Context(), c, initrd); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(garbage, []byte(strings.Repeat("garbage ", 1<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := vm.CreateDisk(broken, 128<<20); err != nil {
		t.Fatal(err)
	}
	tool(t, "mkfs.ext4", "-q", "-L", "ssi-root", broken)
	// A check without questions does not repair a root directory that is none.
	tool(t, "debugfs", "-w", "-R", "set_inode_field <2> mode 0100644", broken)
	tool(t, "debugfs", "-w", "-R", "set_super_value state 0", broken)

	m := n.Machine(vm.Spec{
		Name: "bad", Kernel: kernel.Image, Initrd: initrd,
		Append: "console=ttyS0 rdinit=/sbin/ssi panic=-1 loglevel=4 root=LABEL=ssi-root rootfstype=ext4 rw rootwait=3 init=/sbin/ssi",
		Disks:  []vm.Disk{{Path: garbage}},
		Extra:  []string{"-drive", "if=none,id=later,format=raw,file=" + broken},
	})
	m.Start()
	m.Say(`root-device: FAILED: not done within 3s: root=LABEL=ssi-root: .*the disks are vda`)
	m.Say(`The start of this machine stops at "root-device": .*is root= of the kernel command line right`)
	m.Say(`A shell follows`)
	m.Say(`# $`)
	// The right disk is put in.
	ctx := t.Context()
	if _, err := m.QMP(ctx, "device_add", map[string]string{"driver": "virtio-blk-pci", "drive": "later", "id": "later"}); err != nil {
		t.Fatal(err)
	}
	m.Type("exit")
	m.Say(`root-device: /dev/vdb ext4`)
	m.Say(`RUN fsck MANUALLY`)
	m.Say(`root-check: FAILED: /dev/vdb has errors that are not repaired without a question \(fsck status 4\): run fsck /dev/vdb by hand`)
	m.Say(`A shell follows`)
	m.Say(`# $`)
	if out, status := m.Run("fsck.ext4 -y /dev/vdb"); status != 1 {
		t.Errorf("fsck ended with %d: %s", status, out)
	}
	m.Type("exit")
	m.Say(`root-check: /dev/vdb is clean`)
	m.Say(`root: FAILED: the root file system has no program /sbin/ssi: is root= right\?`)
	m.Say(`# $`)
	if out, _ := m.Run("cat /run/ssi/boot.json"); !strings.Contains(out, `"state":"emergency","why":"root: the root file system has no program`) {
		t.Errorf("the report: %s", out)
	}
	// One is put there.
	if out, status := m.Run("mkdir -p /root/sbin /root/proc /root/sys /root/dev /root/run && cp /sbin/ssi /root/sbin/ && echo done"); status != 0 {
		t.Fatalf("%s", out)
	}
	m.Type("exit")
	m.Say(`root: /dev/vdb \(ext4\), continuing with its /sbin/ssi`)
	m.Say(`boot: done`)
}

// bootFiles is where a node has what machines boot.
const bootFiles = "/var/lib/ssi/netboot"

// TestBadMachines: what is wrong with a machine that boots from the cluster is said
// on its console, and when the cause is gone, it becomes a node.
func TestBadMachines(t *testing.T) {
	m := newMachines(t, 3, 1)
	m.run(m.first, "ssi cluster init --name vm --node 1")
	m.sees(m.first, 1, "UP")
	m.first.Say("booting machines")

	// By kernel and initramfs, as a boot loader on a disk would.
	direct := func(name string, memory int, nics []vm.NIC, extra ...string) *vmtest.Machine {
		return m.Machine(vm.Spec{
			Name: name, Memory: memory, Kernel: m.kernel.Image, Initrd: m.first.Spec().Initrd, NICs: nics, Extra: extra,
			Append: "console=ttyS0 rdinit=/sbin/ssi panic=-1 quiet loglevel=4 ssi.cluster=http://10.55.0.1:8067 BOOTIF=01-52-54-00-55-00-03",
		})
	}
	{ // no NIC and little memory; beside it no carrier, no answer, a clock of the future.
		m.run(m.first, "ssi addnode 52:54:00:55:00:03 --node 3")
		bare := direct("bare", 160, nil)
		a := direct("lonely", 256, []vm.NIC{{Segment: "ic", MAC: []byte{0x52, 0x54, 0, 0x55, 0, 3}}}, "-rtc", "base=2040-01-02T03:04:05")
		a.Start()
		a.Link(0, false)
		bare.Start()
		a.Say(`waiting for the network.*no carrier`)
		ic := m.Segment("ic")
		if err := ic.SetFault(vm.PortName("first", 0), vm.PortName("lonely", 0), vm.Fault{Cut: true}); err != nil {
			t.Fatal(err)
		}
		a.Link(0, true)
		bare.Say(`memory: FAILED: this machine has \d+ MiB of memory, a node needs \d+`)
		for range 2 { // it is said again and again
			bare.Say(`waiting for the network.*this machine has no network interface`)
		}
		bare.Cut()
		a.Say(`waiting for the network.*no DHCP server`)
		ic.ClearFaults()
		a.Say(`the clock was set by -\d{4,}h`)
		// It does not have its kernel from the cluster, so it gets no credential.
		a.Say(`this machine must boot again, from the network`)
		a.Off()
	}
	{ // damaged boot files, a clock of the past.
		m.run(m.first, "ssi addnode 52:54:00:55:00:02 --node 2")
		m.run(m.first, fmt.Sprintf("cp -p %s/initrd.img /root/saved && truncate -s 1000000 %s/initrd.img", bootFiles, bootFiles))
		a := m.Machine(vm.Spec{Name: "node2", Memory: 512, Boot: vm.BootNetwork, Extra: []string{"-rtc", "base=1980-01-02T03:04:05"},
			NICs: []vm.NIC{{Segment: "ic", MAC: []byte{0x52, 0x54, 0, 0x55, 0, 2}}}})
		a.Start()
		a.Say(`did not deliver what this machine boots from`)
		a.Say(`trying again in`)
		m.first.Say(`the file was changed after it was checked`)
		m.run(m.first, fmt.Sprintf("cp -p /root/saved %s/initrd.img", bootFiles))
		a.Say(`the clock was set by \d{5,}h`)
		m.sees(m.first, 2, "UP")
	}
}
