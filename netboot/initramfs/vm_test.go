package initramfs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/kmod"
	"ssi/internal/vm"
	"ssi/internal/vmtest"
)

// debianModules is the tree of a kernel with its index, which takes long to make.
func debianModules(t *testing.T, k vmtest.Kernel) string {
	t.Helper()
	made := vmtest.Made(t, "modules-"+k.Version, func(_ context.Context, path string) error {
		dir := filepath.Join(path, k.Version)
		x, err := kmod.Open(k.Modules)
		if err != nil {
			return err
		}
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.Symlink(filepath.Join(k.Modules, "kernel"), filepath.Join(dir, "kernel"))); err != nil {
			return err
		}
		for name, b := range x.Files(func(m *kmod.Module) (string, bool) { return m.Path, true }) {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
				return err
			}
		}
		return nil
	})
	return filepath.Join(made, k.Version)
}

// What a virtual machine and any machine get is small enough to be sent to many
// at once.
func TestSize(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: -short leaves out Debian's kernel and building ssi")
	}
	k := vmtest.CloudKernel(t)
	tree, image := debianModules(t, k), k.Image
	binary := vmtest.Binary(t)
	for _, class := range []string{"vm", "generic"} {
		r, err := Build(t.Context(), Config{Binary: binary, Tree: tree, Kernel: image, Classes: []string{class}}, filepath.Join(t.TempDir(), "initramfs"))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %.1f MB, %.1f MB unpacked, %d modules, kernel %s; absent: %s", class, float64(r.Size)/1e6, float64(r.Uncompressed)/1e6, len(r.Modules), r.Version, r.Absent)
		if r.Size > 20e6 {
			t.Errorf("%s: %d bytes, more than 20 MB", class, r.Size)
		}
		for _, m := range []string{"virtio_net", "virtio_blk", "bonding", "8021q", "overlay", "ip_vs", "nbd", "cuse", "softdog", "button", "evdev", "ext4", "nvme", "crc32c_generic"} {
			if slices.Contains(r.Absent, m) { // else it is packed or built in
				t.Errorf("%s: this kernel has no %s", class, m)
			}
		}
	}
}

// The kernel itself takes what was built: this test's own program is PID 1 of a
// virtual machine and finds drivers, network and disk there. See guest.
func TestBoot(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: -short leaves out machines")
	}
	net := vmtest.New(t, 1)
	k := vmtest.CloudKernel(t)
	tree := debianModules(t, k)
	x, err := kmod.Open(tree)
	if err != nil {
		t.Fatal(err)
	}
	var files []File // modules as a disk has them, compressed
	for _, name := range []string{"ifb", "nlmon"} {
		m := x.Module(name)
		if m == nil {
			t.Fatalf("this kernel has no module %s", name)
		}
		files = append(files, File{Path: "/" + filepath.Base(m.Path), Source: x.File(m)})
	}
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	initrd, disk := filepath.Join(dir, "initrd"), filepath.Join(dir, "disk")
	_, err = Build(t.Context(), Config{
		Binary: own, Tree: tree, Kernel: k.Image, Files: files, Classes: []string{"vm"}, Modules: []string{"dm_mod"},
		Programs: []Program{{Source: own, Path: "/guest"}}, // for its libraries, if it has any
	}, initrd)
	if err != nil {
		t.Fatal(err)
	}
	more, err := Overlay([]File{{Path: "/etc/ssi/one", Data: []byte("for this machine")}})
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(initrd)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(initrd, slices.Concat(whole, more), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(disk, partitioned(), 0o600); err != nil {
		t.Fatal(err)
	}
	m := net.Machine(vm.Spec{
		Name: "guest", Memory: 384, Kernel: k.Image, Initrd: initrd, Append: "console=ttyS0 panic=-1 quiet loglevel=4 dummy.numdummies=3 -- " + guestArg,
		NICs: []vm.NIC{{Segment: "net"}}, Disks: []vm.Disk{{Path: disk}},
	})
	m.Start()
	if said := m.Say(`GUEST: all is well|WRONG: .*`); strings.HasPrefix(said[0], "WRONG") {
		t.Error(said[0])
	}
	m.Off()
}

// partitioned is a disk with one partition, that has the super block of an ext4
// labelled root.
func partitioned() []byte {
	const start = 2048 * 512
	b := make([]byte, 8<<20)
	binary.LittleEndian.PutUint32(b[440:], 0xc0ffee01)
	b[446+4] = 0x83
	binary.LittleEndian.PutUint32(b[446+8:], 2048)
	binary.LittleEndian.PutUint32(b[446+12:], uint32(len(b)/512-2048))
	copy(b[510:], "\x55\xaa")
	copy(b[start+1024+0x38:], "\x53\xef")
	copy(b[start+1024+0x60:], "\x42")
	copy(b[start+1024+0x68:], "0123456789abcdef")
	copy(b[start+1024+0x78:], "root")
	return b
}

const guestArg = "guest-of-a-test"

func TestMain(m *testing.M) {
	if os.Getpid() == 1 && slices.Contains(os.Args, guestArg) {
		if err := guest(); err != nil {
			fmt.Println("WRONG:", err)
		} else {
			fmt.Println("GUEST: all is well")
		}
		unix.Sync()
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
	os.Exit(m.Run())
}

// guest is PID 1 of the machine.
func guest() error {
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	if b, err := os.ReadFile("/etc/ssi/one"); err != nil || string(b) != "for this machine" {
		return fmt.Errorf("the appended archive: %q, %w", b, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	start := time.Now()
	index, err := kmod.Open(filepath.Join(kmod.Dir, unix.ByteSliceToString(uts.Release[:])))
	if err != nil {
		return err
	}
	rules, err := kmod.ReadRules(kmod.RuleDirs(), string(cmdline))
	if err != nil {
		return err
	}
	events, err := kmod.Listen()
	if err != nil {
		return err
	}
	own, err := kmod.Listen()
	if err != nil {
		return err
	}
	fmt.Printf("GUEST: index of %d modules in %v\n", len(index.Modules()), time.Since(start))
	start = time.Now()
	loader := kmod.NewLoader(index, rules, kmod.NewSystem("/sys"))
	disks := kmod.Disks{Sys: "/sys", Dev: "/dev"}
	hotplug := kmod.Hotplug{Loader: func() (*kmod.Loader, error) { return loader, nil }, Events: events, Links: &kmod.Links{Disks: disks}, Sys: "/sys", Log: slog.New(slog.NewTextHandler(os.Stdout, nil))}
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- hotplug.Run(running) }()
	spec, err := kmod.ParseSpec("LABEL=root")
	if err != nil {
		return err
	}
	disk, err := disks.Wait(ctx, spec, own)
	if err != nil {
		return err
	}
	fmt.Printf("GUEST: disk %+v after %v\n", disk, time.Since(start))
	if disk.Name != "vda1" || disk.PartUUID != "c0ffee01-01" || !disk.Partition {
		return fmt.Errorf("the disk is %+v", disk)
	}
	exists := func(file string) func() (bool, error) {
		return func() (bool, error) { _, err := os.Stat(file); return err == nil, nil }
	}
	for _, file := range []string{"/sys/class/net/eth0", "/dev/disk/by-partuuid/c0ffee01-01", "/dev/disk/by-label/root"} {
		if err := kmod.WaitFor(ctx, nil, exists(file)); err != nil {
			return fmt.Errorf("wait for %s: %w", file, err)
		}
	}
	for _, m := range []string{"bonding", "ip_vs", "nbd", "cuse", "softdog", "overlay", "8021q", "ext4", "dummy", "fuse", "loop", "veth"} {
		if _, err := loader.Load(m); err != nil {
			return err
		}
	}
	for file, want := range map[string]bool{"/sys/class/net/bond0": false, "/sys/class/net/dummy2": true, "/sys/class/net/dummy3": false, "/sys/module/libcrc32c": true, "/dev/nbd0": false, "/dev/loop0": false} {
		if _, err := os.Stat(file); (err == nil) != want {
			return fmt.Errorf("%s: %v, want it there: %v", file, err, want)
		}
	}
	// Compressed modules, by the kernel if it can, and by ourselves.
	for name, system := range map[string]*kmod.System{"ifb": kmod.NewSystem("/sys"), "nlmon": kmod.NewSystem("/nosuch")} {
		files, err := filepath.Glob("/" + name + ".ko*")
		if err != nil || len(files) != 1 {
			return fmt.Errorf("modules %s: %w", files, err)
		}
		if err := system.Insert(files[0], ""); err != nil {
			return err
		}
		if err := system.Insert(files[0], ""); !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("%s, inserted twice: %w", files[0], err)
		}
	}
	// The disk is pulled out, and put in again.
	dev, err := filepath.EvalSymlinks("/sys/class/block/vda/device/..")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dev, "remove"), []byte("1"), 0); err != nil {
		return err
	}
	if err := kmod.WaitFor(ctx, nil, func() (bool, error) {
		_, err := os.Lstat("/dev/disk/by-label/root")
		return os.IsNotExist(err), nil
	}); err != nil {
		return fmt.Errorf("link of a disk that went: %w", err)
	}
	if err := os.WriteFile("/sys/bus/pci/rescan", []byte("1"), 0); err != nil {
		return err
	}
	if err := kmod.WaitFor(ctx, own, exists("/dev/disk/by-label/root")); err != nil {
		return fmt.Errorf("link of a disk that came again: %w", err)
	}
	stop()
	return <-ended
}
