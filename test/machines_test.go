package test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
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
cmdline = "console=ttyS0 no_timer_check ssi.console=shell"
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
	return newMachinesOf(t, vmtest.CloudKernel, count, voters)
}

// newMachinesOf does so with another kernel.
func newMachinesOf(t *testing.T, kernel func(testing.TB) vmtest.Kernel, count, voters int) *machines {
	t.Helper()
	m := &machines{Net: vmtest.New(t, count), t: t, kernel: kernel(t), binary: vmtest.Binary(t)}
	disk := vmtest.DebianDisk(t, m.kernel, func(root string) error {
		if err := vmtest.PrepareRoot(root, map[string]string{
			"etc/ssi/ssi.toml": fmt.Sprintf(firstConfig, voters), "etc/hostname": "first\n", "etc/fstab": "LABEL=ssi-root / ext4 defaults 0 1\n",
		}); err != nil {
			return err
		}
		if err := put(m.binary, filepath.Join(root, "sbin/ssi")); err != nil {
			return err
		}
		for _, l := range []string{"/usr/lib/ipxe/snponly.efi", "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"} {
			if _, err := os.Stat(l); err != nil {
				t.Skipf("skipped: %v: apt install ipxe systemd-boot-efi", err)
			}
			if err := put(l, filepath.Join(root, l)); err != nil {
				return err
			}
		}
		return makeBootFiles(t.Context(), root, m.kernel)
	})
	initrd := filepath.Join(t.TempDir(), "first.img")
	if _, err := initramfs.Build(t.Context(), initramfs.Config{Binary: m.binary, Tree: m.kernel.Modules, Classes: []string{"vm"}}, initrd); err != nil {
		t.Fatal(err)
	}
	m.first = m.Machine(vm.Spec{
		Name: "first", Memory: 512, Kernel: m.kernel.Image, Initrd: initrd,
		Append: "console=ttyS0 rdinit=/sbin/ssi panic=-1 quiet loglevel=4 no_timer_check root=LABEL=ssi-root rootfstype=ext4 init=/sbin/ssi",
		NICs:   []vm.NIC{{Segment: "ic", MAC: []byte{0x52, 0x54, 0, 0x55, 0, 1}}}, Disks: []vm.Disk{disk},
	})
	m.first.Start()
	m.first.Say(`first login: `)
	m.first.Type("root")
	m.first.Say(`# $`)
	return m
}

// makeBootFiles has ssi make what the first node boots others from, in its root
// directory. There it finds that this was done, and does not do it on its emulated
// processor; the initramfs of a hardware class it makes itself.
func makeBootFiles(ctx context.Context, root string, kernel vmtest.Kernel) error {
	config := filepath.Join(root, "etc/ssi/ssi.toml")
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	// Its kernel is not that of this computer.
	if err := os.WriteFile(config, fmt.Appendf(text, "kernel = %q\n", kernel.Version), 0o644); err != nil {
		return err
	}
	// What files are made of is known by its time, of which mke2fs keeps the seconds.
	modules := filepath.Join("lib/modules", kernel.Version)
	for _, name := range []string{"sbin/ssi", "bin/bash", "bin/busybox", "boot/vmlinuz-" + kernel.Version, modules, modules + "/modules.dep"} {
		path := filepath.Join(root, name)
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if err := os.Chtimes(path, time.Time{}, info.ModTime().Truncate(time.Second)); err != nil {
			return err
		}
	}
	// It needs a /proc to know its name.
	out, err := exec.CommandContext(ctx, "unshare", "--fork", "--pid", "--mount-proc", "--root="+root, "/sbin/ssi", "bootfiles").CombinedOutput()
	if err != nil {
		return fmt.Errorf("ssi bootfiles: %w: %s", err, out)
	}
	return os.WriteFile(config, text, 0o644)
}

// put copies a program.
func put(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

// node describes a machine without a disk that boots from the network.
func (m *machines) node(n int, change ...func(*vm.Spec)) *vmtest.Machine {
	spec := vm.Spec{Name: fmt.Sprintf("node%d", n), Memory: 512, Boot: vm.BootNetwork,
		NICs: []vm.NIC{{Segment: "ic", MAC: []byte{0x52, 0x54, 0, 0x55, 0, byte(n)}}}}
	for _, f := range change {
		f(&spec)
	}
	return m.Machine(spec)
}

// uefi boots by the PXE of UEFI.
func uefi(s *vm.Spec) { s.Firmware, s.NoROM = vm.UEFI, true }

// uefiHTTP boots by the HTTP boot of UEFI, with its PXE switched off.
func uefiHTTP(s *vm.Spec) {
	uefi(s)
	for _, v := range []string{"IPv4", "IPv6"} {
		s.Extra = append(s.Extra, "-fw_cfg", "name=opt/org.tianocore/"+v+"PXESupport,string=n")
	}
}

// twoNetworks adds a network that has a DHCP server and a router, which leads
// nowhere.
func twoNetworks(s *vm.Spec) {
	s.Extra = append(s.Extra, "-netdev", "user,id=other,restrict=on,ipv6=off", "-device", "virtio-net-pci,netdev=other,romfile=")
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

// prints runs a command that prints one line, beside what the daemon says on the
// same console.
func (m *machines) prints(on *vmtest.Machine, command, line string) {
	m.t.Helper()
	if out := m.run(on, command); !slices.Contains(strings.Split(strings.ReplaceAll(out, "\r", ""), "\n"), line) {
		m.t.Errorf("%s on %s: %q", command, on.Name(), out)
	}
}

// sees waits until a machine sees a node UP, or in another state.
func (m *machines) sees(on *vmtest.Machine, node int, state string) {
	m.t.Helper()
	m.until(on, fmt.Sprintf("ssi clusternode_getstate %d", node), state)
}

// TestMachines: a Debian machine with ssi as its init boots machines that are
// switched on, with nothing but their MAC addresses, by BIOS and by UEFI; their power
// is cut; and when that of the first one is cut, another one boots machines, and one
// that was just booting goes on.
func TestMachines(t *testing.T) {
	if err := vm.Available(vm.UEFI); err != nil {
		t.Skipf("skipped: %v", err)
	}
	m := newMachines(t, 4, 3)
	m.run(m.first, "ssi cluster init --name vm --node 1")
	m.sees(m.first, 1, "UP")
	m.first.Say("booting machines")
	// The first node makes the initramfs of a hardware class while it boots machines.
	m.run(m.first, "ssi addnode 52:54:00:55:00:02 --node 2 --class vm")
	// The daemon is killed: its next life boots machines again.
	m.run(m.first, `for p in /proc/[0-9]*; do [ "$(tr '\0' ' ' <$p/cmdline)" = "ssi node " ] && kill -9 ${p#/proc/} && echo killed; done | grep killed`)
	m.until(m.first, "cat /proc/net/udp", "0043") // port 67; that of the killed one closed with it

	second, third := m.node(2), m.node(3, uefiHTTP, twoNetworks)
	second.Start()
	m.shell(second)
	m.sees(m.first, 2, "UP")
	m.prints(m.first, "ssi onnode 2 clusternode_num", "2")
	m.prints(second, "onnode 1 cat /etc/hostname", "first")

	// A machine that nobody knows waits until it is approved. Its image has the same
	// command line for all: it finds out by itself which interface is that of the cluster.
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

	// The first one goes: another one holds init. A machine that waits to be approved
	// finds it, and a new one boots from it.
	m.until(second, "ls /var/lib/ssi/netboot", "linuxx64.efi.stub")
	m.until(third, "ls /var/lib/ssi/netboot", "linuxx64.efi.stub")
	m.until(m.first, "dmesg | grep class=vm", "own initramfs")
	fourth := m.node(4, uefi)
	fourth.Start()
	m.until(m.first, "ssi node ls", "52:54:00:55:00:04")
	fourth.Say("ssi node approve 52:54:00:55:00:04")
	m.first.Cut()
	cut := time.Now()
	m.sees(second, 1, "DOWN")
	t.Logf("power cut to DOWN: %v", time.Since(cut).Round(time.Second/10))
	fourth.Say(`boots machines at http://10\.55\.0\.\d+:8067 now, no more at http://10\.55\.0\.1:8067`)
	t.Logf("power cut to a machine that found the new init: %v", time.Since(cut).Round(time.Second/10))
	m.run(second, "ssi node approve 52:54:00:55:00:04 --node 4")
	m.sees(second, 4, "UP")
	m.run(second, "ssi addnode 52:54:00:55:00:05 --node 5")
	fifth := m.node(5)
	fifth.Start()
	m.shell(fifth)
	m.sees(second, 5, "UP")
	m.prints(third, "onnode 5 clusternode_num", "5")
}
