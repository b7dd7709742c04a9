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
max_voters = %d

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

// newMachines starts the first node: Debian on a disk, and ssi as its init. voters
// is how many nodes vote at most: a cluster of two votes does not outlive either.
func newMachines(t *testing.T, count, voters int) *machines {
	t.Helper()
	m := &machines{Net: vmtest.New(t, count), t: t, kernel: vmtest.CloudKernel(t), binary: vmtest.Binary(t)}
	disk := vmtest.DebianDisk(t, m.kernel, func(root string) error {
		for name, text := range map[string]string{
			"etc/ssi/ssi.toml": fmt.Sprintf(firstConfig, voters), "etc/hostname": "first\n", "etc/fstab": "LABEL=ssi-root / ext4 defaults 0 1\n",
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
		if regexp.MustCompile(`\b` + regexp.QuoteMeta(text) + `\b`).MatchString(out) { // UP is not NEVERUP
			return
		}
		select {
		case <-ctx.Done():
			m.t.Fatalf("%s: never says %q, but:\n%s", command, text, out)
		case <-time.After(time.Second):
		}
	}
}

// shell waits for the shell that a diskless node offers on its console.
func (m *machines) shell(on *vmtest.Machine) {
	m.t.Helper()
	on.Say(`press Enter for a shell of root`)
	on.Type("")
	on.Say(`# $`)
}

// run runs a command on a machine, which must succeed.
func (m *machines) run(on *vmtest.Machine, command string) string {
	m.t.Helper()
	out, status := on.Run(command)
	if status != 0 {
		m.t.Fatalf("%s on %s: status %d: %s", command, on.Name(), status, out)
	}
	return out
}

// sees waits until a machine sees a node UP, or in another state.
func (m *machines) sees(on *vmtest.Machine, node int, state string) {
	m.t.Helper()
	m.until(on, fmt.Sprintf("ssi clusternode_getstate %d", node), state)
}

// TestMachines: a Debian machine with ssi as its init boots machines that are
// switched on, with nothing but their MAC addresses; their power is cut; and when
// that of the first one is cut, another one boots machines.
func TestMachines(t *testing.T) {
	m := newMachines(t, 3, 3)
	m.run(m.first, "ssi cluster init --name vm --node 1")
	m.sees(m.first, 1, "UP")
	m.first.Say("booting machines")
	m.run(m.first, "ssi addnode 52:54:00:55:00:02 --node 2")

	second, third := m.node(2), m.node(3)
	second.Start()
	m.shell(second)
	m.sees(m.first, 2, "UP")
	if out := m.run(m.first, "ssi onnode 2 clusternode_num"); strings.TrimSpace(out) != "2" {
		t.Errorf("onnode 2 clusternode_num: %q", out)
	}
	if out := m.run(second, "onnode 1 cat /etc/hostname"); strings.TrimSpace(out) != "first" {
		t.Errorf("onnode 1 cat /etc/hostname: %q", out)
	}

	// A machine that nobody knows waits until it is approved.
	third.Start()
	m.shell(third)
	m.until(m.first, "ssi node ls", "52:54:00:55:00:03")
	m.run(m.first, "ssi node approve 52:54:00:55:00:03 --node 3")
	m.sees(m.first, 3, "UP")

	// Its power is cut, and it comes back. With three votes one may be missing.
	m.until(m.first, "ssi cluster | grep -c voter", "3")
	second.Cut()
	m.sees(m.first, 2, "DOWN")
	second.Start()
	m.shell(second)
	m.sees(m.first, 2, "UP")
	m.sees(second, 3, "UP")
	m.until(m.first, "ssi cluster | grep -c voter", "3")

	// The first one goes: another one holds init and boots the next.
	m.until(second, "ls /var/lib/ssi/netboot", "initrd.img")
	m.until(third, "ls /var/lib/ssi/netboot", "initrd.img")
	m.first.Cut()
	m.sees(second, 1, "DOWN")
	m.run(second, "ssi addnode 52:54:00:55:00:04 --node 4")
	// Firmware that finds no DHCP server gives up: port 67 (0043) is open on one of them.
	m.until(second, "onnode 2 cat /proc/net/udp; onnode 3 cat /proc/net/udp", "0043")
	fourth := m.node(4)
	fourth.Start()
	m.shell(fourth)
	m.sees(second, 4, "UP")
	if out := m.run(third, "onnode 4 clusternode_num"); strings.TrimSpace(out) != "4" {
		t.Errorf("onnode 4 clusternode_num: %q", out)
	}
}
