package install

import (
	"context"
	le "encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ssi/internal/api"
	"ssi/internal/vm"
	"ssi/internal/vmtest"
)

const (
	sector      = 512
	firstSector = 2048 // of the partition, as every partitioning program has it
	stockSize   = 1 << 30
	stockMAC    = "52:54:00:66:00:01"
	startTime   = 10 * time.Minute // for a login
	// stockIface is what udev calls the NIC.
	stockIface = "ens3"
	// stockPackages make the smallest Debian a machine that boots and has a network.
	stockPackages = "systemd-sysv,udev,kmod,ifupdown,iproute2,initramfs-tools,zstd,grub-pc,login"
)

// stockFiles are what the installer of Debian asks for, and grub on the console.
func stockFiles() map[string]string {
	return map[string]string{
		"etc/hostname":                  "stock\n",
		"etc/fstab":                     "LABEL=stock / ext4 errors=remount-ro 0 1\n",
		"etc/network/interfaces.d/lan":  "allow-hotplug " + stockIface + "\niface " + stockIface + " inet static\n\taddress 10.66.0.1/24\n\tgateway 10.66.0.254\n",
		"etc/resolv.conf":               "nameserver 10.66.0.254\n",
		"etc/default/grub.d/serial.cfg": "GRUB_TIMEOUT=1\nGRUB_CMDLINE_LINUX=\"console=ttyS0 no_timer_check\"\nGRUB_TERMINAL=serial\nGRUB_SERIAL_COMMAND=\"serial --unit=0 --speed=115200\"\n",
	}
}

// stock is a machine with Debian, grub in the first sectors of its disk, and ssi
// on a second disk.
type stock struct {
	*vmtest.Machine
	t    *testing.T
	disk string // what is written goes to this overlay
	base string // of this disk, which has one partition
}

// newStock makes a stock Debian machine. Made once: the packages, and the disk
// after a first start, in which update-grub wrote the menu.
func newStock(t *testing.T, suite string) *stock {
	t.Helper()
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		t.Skip("skipped: mmdebstrap is missing (package mmdebstrap)")
	}
	// The place for the machine is taken before the disk is made, in this test alone.
	n, k := vmtest.New(t, 1), vmtest.CloudKernel(t)
	root := vmtest.Made(t, "stock-"+suite+"-"+k.Version+".tar", func(ctx context.Context, path string) error {
		out, err := exec.CommandContext(ctx, "mmdebstrap", "--quiet", "--variant=minbase", "--include="+stockPackages+",linux-image-"+k.Version,
			"--essential-hook=echo grub-pc grub-pc/install_devices_empty boolean true | chroot \"$1\" debconf-set-selections",
			// As a targeted initramfs, which the installer offers: grub reads it slowly.
			"--essential-hook=cd \"$1\" && mkdir -p etc/initramfs-tools/conf.d usr/share/initramfs-tools/modules.d && echo MODULES=list >etc/initramfs-tools/conf.d/list && printf 'virtio_pci\\nvirtio_blk\\next4\\n' >usr/share/initramfs-tools/modules.d/stock",
			"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
			suite, path).CombinedOutput()
		if err != nil {
			t.Skipf("skipped: no Debian %s could be made, is there a network? %v\n%s", suite, err, out)
		}
		return nil
	})
	s := &stock{t: t}
	s.base = vmtest.Made(t, "stock-"+suite+"-"+k.Version+".img", func(ctx context.Context, path string) error {
		dir := t.TempDir()
		if err := makeStock(ctx, root, dir, path); err != nil {
			return err
		}
		first := n.Machine(vm.Spec{Name: "prepare", Memory: 512, Kernel: filepath.Join(dir, "vmlinuz"), Initrd: filepath.Join(dir, "initrd.img"),
			Append: "root=LABEL=stock ro console=ttyS0 quiet no_timer_check", Disks: []vm.Disk{{Path: path}}})
		first.Start()
		(&stock{Machine: first, t: t}).login()
		if out, status := first.Run("update-grub"); status != 0 {
			return fmt.Errorf("update-grub: %s", out)
		}
		first.Type("poweroff")
		first.Off()
		return nil
	})
	s.disk = vmtest.Overlay(t, s.base)
	s.Machine = n.Machine(vm.Spec{Name: "stock", Memory: 512, Boot: vm.BootDisk, Reboot: true, NoROM: true,
		NICs:  []vm.NIC{{Segment: "lan", MAC: []byte{0x52, 0x54, 0, 0x66, 0, 1}}},
		Disks: []vm.Disk{{Path: s.disk, Format: "qcow2"}, {Path: programDisk(t, vmtest.Binary(t))}}})
	return s
}

// makeStock makes a disk with grub as grub-install(8) does, without a device: the
// boot sector, behind it the core image, then the partition with Debian. Kernel and
// initramfs are left in dir.
func makeStock(ctx context.Context, tar, dir, disk string) error {
	root := filepath.Join(dir, "root")
	run := func(name string, args ...string) error {
		if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, out)
		}
		return nil
	}
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(root)
	if err := run("tar", "-C", root, "-xf", tar); err != nil {
		return err
	}
	if err := vmtest.PrepareRoot(root, stockFiles()); err != nil {
		return err
	}
	// What grub-install copies and makes.
	if err := run("cp", "-a", filepath.Join(root, "usr/lib/grub/i386-pc"), filepath.Join(root, "boot/grub/")); err != nil {
		return err
	}
	if err := run("chroot", root, "grub-editenv", "/boot/grub/grubenv", "create"); err != nil {
		return err
	}
	const core = "boot/grub/i386-pc/core.img"
	if err := run("chroot", root, "grub-mkimage", "-O", "i386-pc", "-o", "/"+core, "-p", "(hd0,msdos1)/boot/grub", "biosdisk", "part_msdos", "ext2"); err != nil {
		return err
	}
	for _, name := range []string{"vmlinuz", "initrd.img"} {
		found, err := filepath.Glob(filepath.Join(root, "boot", name+"-*"))
		if err != nil || len(found) != 1 {
			return fmt.Errorf("%d files /boot/%s-*: %v", len(found), name, err) //nolint:errorlint // it may be nil
		}
		if err := run("cp", found[0], filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if err := vm.CreateDisk(disk, stockSize+firstSector*sector); err != nil {
		return err
	}
	if err := run("mke2fs", "-q", "-F", "-t", "ext4", "-L", "stock", "-E", fmt.Sprintf("offset=%d", firstSector*sector), "-d", root, disk, fmt.Sprintf("%dk", stockSize>>10)); err != nil {
		return err
	}
	bootSector, err := os.ReadFile(filepath.Join(root, "boot/grub/i386-pc/boot.img"))
	if err != nil {
		return err
	}
	coreImage, err := os.ReadFile(filepath.Join(root, core))
	if err != nil {
		return err
	}
	if len(bootSector) != sector || len(coreImage) > (firstSector-1)*sector {
		return fmt.Errorf("a boot sector of %d and a core image of %d bytes do not fit before the partition", len(bootSector), len(coreImage))
	}
	// The table of partitions: one, that boots, of Linux (83).
	entry := append([]byte{0x80, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff}, make([]byte, 8)...)
	le.LittleEndian.PutUint32(entry[8:], firstSector)
	le.LittleEndian.PutUint32(entry[12:], stockSize/sector)
	copy(bootSector[446:], append(entry, make([]byte, 48)...))
	bootSector[510], bootSector[511] = 0x55, 0xaa
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(append(bootSector, coreImage...), 0)
	return err
}

// programDisk is a disk whose file system has the program.
func programDisk(t *testing.T, program string) string {
	t.Helper()
	dir, disk := t.TempDir(), filepath.Join(t.TempDir(), "program.img")
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ssi"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := vm.CreateDisk(disk, int64(len(b))+(16<<20)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "mke2fs", "-q", "-F", "-t", "ext4", "-d", dir, disk).CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v: %s", err, out)
	}
	return disk
}

// login waits for the login of a start of the machine.
func (s *stock) login() {
	s.t.Helper()
	// systemd and udev take an emulated processor longer than vmtest waits, when others
	// want it, too.
	ctx, cancel := context.WithTimeout(s.t.Context(), startTime)
	defer cancel()
	if _, err := s.Expect(ctx, `stock login: `); err != nil {
		s.t.Fatal(err)
	}
	s.Type("root")
	s.Say(`# $`)
}

// must runs a command that must succeed.
func (s *stock) must(command string) string {
	s.t.Helper()
	out, status := s.Run(command)
	if status != 0 {
		s.t.Fatalf("%s: status %d: %s", command, status, out)
	}
	return strings.TrimSpace(out)
}

// until repeats a command until its output has a text.
func (s *stock) until(command, text string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), vmtest.Patience)
	defer cancel()
	for {
		out, _ := s.Run(command)
		if regexp.MustCompile(`\b` + regexp.QuoteMeta(text) + `\b`).MatchString(out) { // UP is not NEVERUP
			return
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("%s: never says %q, but:\n%s", command, text, out)
		case <-time.After(time.Second):
		}
	}
}

// upTime is how long after the start of its kernel the machine was a node that is UP.
func (s *stock) upTime() time.Duration {
	s.t.Helper()
	var status api.ClusterStatus
	if err := json.Unmarshal([]byte(s.must("ssi cluster --json")), &status); err != nil || len(status.Nodes) != 1 {
		s.t.Fatalf("ssi cluster --json: %v: %+v", err, status)
	}
	var running float64 // seconds
	var now int64
	if _, err := fmt.Sscan(s.must("cut -d' ' -f1 /proc/uptime; date +%s%N"), &running, &now); err != nil {
		s.t.Fatal(err)
	}
	kernel := time.Unix(0, now).Add(-time.Duration(running * float64(time.Second)))
	return status.Nodes[0].Since.Sub(kernel).Round(10 * time.Millisecond)
}

// says runs a command whose output must have these texts.
func (s *stock) says(command string, want ...string) {
	s.t.Helper()
	out := s.must(command)
	for _, w := range want {
		if !strings.Contains(out, w) {
			s.t.Errorf("%s does not say %q:\n%s", command, w, out)
		}
	}
}

// files describes the files on the partition of a raw disk: mode, owner, and
// content. Left out is what a start of Debian and grub-reboot change themselves.
func files(t *testing.T, disk string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "debugfs", "-R", "rdump / "+dir, fmt.Sprintf("%s?offset=%d", disk, firstSector*sector)).CombinedOutput()
	if err != nil {
		t.Fatalf("debugfs: %v: %s", err, out)
	}
	changing := regexp.MustCompile(`^/(var/log|var/lib/systemd|var/lib/dhcp|var/cache|var/tmp|tmp|run|proc|sys|dev|root/\.bash_history|lost\+found|boot/grub/grubenv)(/|$)`)
	all := map[string]string{}
	sum := exec.CommandContext(t.Context(), "sh", "-c", `cd "$1" && find . -xdev -printf '%m %U:%G %l %p\n' && find . -xdev -type f -exec md5sum {} +`, "sh", dir)
	text, err := sum.Output()
	if err != nil {
		t.Fatalf("read the files of %s: %v", disk, err)
	}
	for line := range strings.Lines(string(text)) {
		rest, path, ok := strings.Cut(strings.TrimSpace(line), " ./")
		if path = "/" + path; ok && !changing.MatchString(path) {
			all[path] += strings.TrimSpace(rest) + " "
		}
	}
	if len(all) < 5000 {
		t.Fatalf("only %d files were found on %s", len(all), disk)
	}
	return all
}

// A stock Debian machine, booted by grub from its disk: a dry run changes nothing;
// after an install it is a node under ssi, in its own root, by the new entry, and
// Debian's own by the old one; and an uninstall there leaves the disk as it was.
func TestInstalledMachine(t *testing.T) {
	s := newStock(t, "bookworm")
	s.Start()
	s.login()
	s.until("ip -br addr show dev "+stockIface, "10.66.0.1") // a login does not wait for it
	s.must("mount -r /dev/vdb /mnt && touch /run/before")
	s.says("/mnt/ssi install --dry-run --name stock", "would write  /sbin/ssi", "would write  /etc/grub.d/41_ssi", "would found", "would run    update-grub",
		`address = ["10.66.0.1/24"]`)
	if out := s.must("find / -xdev -newer /run/before -type f -not -path '/var/log/*' -not -path '/var/lib/systemd/*'"); out != "" {
		t.Errorf("a dry run changed %s", out)
	}
	s.says("/mnt/ssi install --name stock", "founded      cluster stock", "at 10.66.0.1:1985", "ran          update-grub",
		`mac = "`+stockMAC+`"`, `gateway = "10.66.0.254"`, `dns = ["10.66.0.254"]`, `role = "interconnect"`)
	s.must("test -d /var/lib/ssi/netboot")

	s.must("grub-reboot ssi")
	s.Type("reboot")
	s.login()
	s.says("readlink /proc/1/exe", "/sbin/ssi")
	s.says("findmnt -nro SOURCE,FSTYPE,OPTIONS /", "/dev/vda1 ext4 rw")
	s.says("cat /etc/debian_version; stat -c %m /etc", "12.", "\n/")
	s.until("ssi clusternode_getstate 1", "UP")
	t.Logf("from the start of the kernel, ssi: %v", s.upTime())
	s.says("cluster", "stock")
	s.says("ip -br addr show dev "+stockIface, "10.66.0.1/24")
	s.says("ip route", "default via 10.66.0.254")
	if out, status := s.Run("ssi uninstall"); status == 0 || !strings.Contains(out, "boot the other entry first") {
		t.Errorf("uninstall under ssi: status %d: %s", status, out)
	}

	// Without asking for an entry it is Debian's again.
	s.Type("reboot")
	s.login()
	s.says("readlink /proc/1/exe", "/systemd")
	s.until("systemd-analyze time", "Startup finished")
	t.Logf("from the start of the kernel, systemd: %s", s.must("systemd-analyze time"))
	s.says("ssi uninstall --purge --yes", "removed      /sbin/ssi", "ran          update-grub")
	s.Type("poweroff")
	s.Off()

	after := filepath.Join(t.TempDir(), "after.img")
	if out, err := exec.CommandContext(t.Context(), "qemu-img", "convert", "-O", "raw", s.disk, after).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img convert: %v: %s", err, out)
	}
	if diff := cmp.Diff(files(t, s.base), files(t, after)); diff != "" {
		t.Errorf("uninstall left:\n%s", diff)
	}
}
