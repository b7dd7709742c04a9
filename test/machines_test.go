package test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"ssi/internal/vm"
	"ssi/internal/vmtest"
	"ssi/netboot/initramfs"
)

// firstConfig is /etc/ssi/ssi.toml of a first node that boots others.
const firstConfig = `name = "first"
max_voters = 3

[[interface]]
mac = "52:54:00:55:00:01"
name = "ic0"
address = ["10.55.0.1/24"]
role = "interconnect"

[netboot]
enable = true
range = "10.55.0.100-10.55.0.199"
unknown = "wait"
cmdline = "console=ttyS0 ssi.console=shell"
`

// machines is a cluster of machines on one segment.
type machines struct {
	*vmtest.Net
	t      *testing.T
	kernel vmtest.Kernel
	binary string
	first  *vmtest.Machine
}

// newMachines starts the first node: Debian on a disk, and ssi as its init.
func newMachines(t *testing.T, count int) *machines {
	t.Helper()
	m := &machines{Net: vmtest.New(t, count), t: t, kernel: vmtest.CloudKernel(t), binary: vmtest.Binary(t)}
	disk := vmtest.DebianDisk(t, m.kernel, func(root string) error {
		for name, text := range map[string]string{
			"etc/ssi/ssi.toml": firstConfig, "etc/hostname": "first\n", "etc/fstab": "LABEL=ssi-root / ext4 defaults 0 1\n",
		} {
			path := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				return err
			}
		}
		shadow := filepath.Join(root, "etc/shadow")
		s, err := os.ReadFile(shadow)
		if err != nil {
			return err
		}
		// Root logs in without a password: it is the test's machine.
		s = regexp.MustCompile(`(?m)^root:[^:]*:`).ReplaceAll(s, []byte("root::"))
		if err := os.WriteFile(shadow, s, 0o600); err != nil {
			return err
		}
		b, err := os.ReadFile(m.binary)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(root, "sbin/ssi"), b, 0o755)
	})
	initrd := filepath.Join(t.TempDir(), "first.img")
	if _, err := initramfs.Build(t.Context(), initramfs.Config{Binary: m.binary, Tree: m.kernel.Modules, Classes: []string{"vm"}}, initrd); err != nil {
		t.Fatal(err)
	}
	m.first = m.Machine(vm.Spec{
		Name: "first", Memory: 512, Kernel: m.kernel.Image, Initrd: initrd,
		Append: "console=ttyS0 rdinit=/sbin/ssi panic=-1 quiet loglevel=4 root=LABEL=ssi-root rootfstype=ext4 init=/sbin/ssi",
		NICs:   []vm.NIC{{Segment: "ic", MAC: []byte{0x52, 0x54, 0, 0x55, 0, 1}}}, Disks: []vm.Disk{disk},
	})
	m.first.Start()
	m.first.Say(`first login: `)
	m.first.Type("root")
	m.first.Say(`# $`)
	return m
}

// node describes a machine without a disk that boots from the network.
func (m *machines) node(n int) *vmtest.Machine {
	return m.Machine(vm.Spec{Name: fmt.Sprintf("node%d", n), Memory: 512, Boot: vm.BootNetwork,
		NICs: []vm.NIC{{Segment: "ic", MAC: []byte{0x52, 0x54, 0, 0x55, 0, byte(n)}}}})
}

// until repeats a command on a machine until its output has a text.
func (m *machines) until(on *vmtest.Machine, command, text string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), vmtest.Patience)
	defer cancel()
	for {
		out, _ := on.Run(command)
		if strings.Contains(out, text) {
			return
		}
		select {
		case <-ctx.Done():
			m.t.Fatalf("%s: never says %q, but:\n%s", command, text, out)
		case <-time.After(time.Second):
		}
	}
}

// TestMachines: a Debian machine with ssi as its init, another one that is
// switched on and becomes a node, and what happens when their power is cut.
func TestMachines(t *testing.T) {
	m := newMachines(t, 2)
	if out, status := m.first.Run("ssi cluster init --name vm --node 1"); status != 0 {
		t.Fatalf("cluster init: %d: %s", status, out)
	}
	m.until(m.first, "ssi cluster", "UP")
	if out, status := m.first.Run("ssi addnode 52:54:00:55:00:02 --node 2"); status != 0 {
		t.Fatalf("addnode: %d: %s", status, out)
	}
	m.until(m.first, "ls /var/lib/ssi/netboot", "initrd.img")
	second := m.node(2)
	second.Start()
	second.Say(`[#$] $`)
	m.until(m.first, "ssi cluster", "m525400550002")
	if out, status := m.first.Run("ssi onnode 2 clusternode_num"); status != 0 || !strings.Contains(out, "2") {
		t.Fatalf("onnode: %d: %s", status, out)
	}
}
