package pid1

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ssi/init/boot"
	"ssi/internal/kmod"
	"ssi/internal/vm"
	"ssi/internal/vmtest"
)

// machineOptions make the test binary the init of a machine.
func machineOptions() Options {
	_ = os.Setenv("TEST_DIR", "/run")
	return Options{Boot: []string{"boot"}, Getty: []string{"getty"}, Services: []Service{{Name: "initctl", Args: []string{"initctl"}}}}
}

// machineBoot is the role boot of that machine.
func machineBoot(args []string) int {
	o := boot.Options{Log: boot.RoleLog("boot", slog.LevelInfo)}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return 1
	}
	x, err := kmod.Open("/lib/modules/" + unix.ByteSliceToString(u.Release[:]))
	if err != nil {
		o.Log.Error("modules", "err", err)
		return boot.Run(o, args)
	}
	l := kmod.NewLoader(x, nil, kmod.NewSystem("/sys"))
	o.Coldplug = func(ctx context.Context, _ bool) (string, error) {
		r, err := l.Coldplug(ctx, "/sys", nil)
		return r.Summary(), err
	}
	o.Load = func(_ context.Context, name string) error {
		_, err := l.Load(name)
		return err
	}
	o.FSType = func(device string) (string, error) {
		spec, err := kmod.ParseSpec(device)
		if err != nil {
			return "", err
		}
		disk, _, err := kmod.Disks{Sys: "/sys", Dev: "/dev"}.Find(spec)
		return disk.FS.Type, err
	}
	return boot.Run(o, args)
}

// programs copies programs into a root, with the libraries they need.
func programs(t *testing.T, root string, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if _, err := os.Stat(path); err != nil {
			t.Skipf("skipped: %v", err)
		}
		files := []string{path}
		out, _ := exec.Command("ldd", path).Output() // fails for a static one
		for _, f := range regexp.MustCompile(`/\S+`).FindAllString(string(out), -1) {
			files = append(files, strings.TrimSuffix(f, ":"))
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(root, f), string(b), 0o755)
		}
	}
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// modules puts some of a kernel's modules, with what they need, into a root.
func modules(t *testing.T, root string, k vmtest.Kernel, names ...string) {
	t.Helper()
	x, err := kmod.Open(k.Modules)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "lib/modules", k.Version)
	paths := map[*kmod.Module]string{}
	for _, name := range names {
		steps, err := x.Resolve(name, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range steps {
			path := s.Module.Path
			path = path[:strings.Index(path, ".ko")] + ".ko"
			b, err := kmod.ReadFile(x.File(s.Module))
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, path), string(b), 0o644)
			paths[s.Module] = path
		}
	}
	files := x.Files(func(m *kmod.Module) (string, bool) { p, ok := paths[m]; return p, ok })
	for name, b := range files {
		write(t, filepath.Join(dir, name), string(b), 0o644)
	}
}

// A machine starts from an initramfs, checks and mounts its root and what
// /etc/fstab says, gives a shell, is powered off, and leaves clean file systems.
func TestMachine(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: -short leaves out machines")
	}
	if os.Getuid() != 0 {
		t.Skip("skipped: needs root to make device nodes")
	}
	net := vmtest.New(t, 1)
	kernel := vmtest.CloudKernel(t)
	dir := t.TempDir()
	first, root := filepath.Join(dir, "first"), filepath.Join(dir, "root")
	binary := filepath.Join(dir, "ssi")
	command(t, "go", "test", "-c", "-ldflags", "-s -w", "-o", binary, ".")
	ssi, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []string{first, root} {
		for _, d := range []string{"dev", "proc", "sys", "run", "root", "tmp", "data", "var/lib", "boot"} {
			if err := os.MkdirAll(filepath.Join(r, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		write(t, filepath.Join(r, "sbin/ssi"), string(ssi), 0o755)
		programs(t, r, "/bin/busybox", "/sbin/fsck.ext4")
		modules(t, r, kernel, "virtio_pci", "virtio_blk", "ext4", "softdog", "i6300esb", "button", "evdev")
	}
	// The distribution's own poweroff, or what it does, see boot.RunInitctl.
	powerOff := `busybox printf 'i\031\t\003\001\000\000\0000\000\000\000' >/run/request; busybox truncate -s 384 /run/request; busybox cat /run/request >/run/initctl`
	if _, err := os.Stat("/bin/systemctl"); err == nil {
		programs(t, root, "/bin/systemctl")
		if err := os.Symlink("/bin/systemctl", filepath.Join(root, "sbin/poweroff")); err != nil {
			t.Fatal(err)
		}
		powerOff = "/sbin/poweroff"
	} else {
		t.Logf("without systemd's poweroff: %v", err)
	}
	if err := unix.Mknod(filepath.Join(first, "dev/console"), unix.S_IFCHR|0o600, int(unix.Mkdev(5, 1))); err != nil {
		t.Skipf("skipped: no device nodes here: %v", err)
	}
	if err := unix.Mknod(filepath.Join(first, "dev/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "etc/hostname"), "atlas\n", 0o644)
	write(t, filepath.Join(root, "etc/sysctl.d/50-test.conf"), "kernel.panic_on_oops = 1\n", 0o644)
	write(t, filepath.Join(root, "etc/fstab"), `/dev/vda / ext4 errors=remount-ro 0 1
/dev/vdb /data ext4 noatime 0 2
tmpfs /tmp tmpfs nosuid,size=10m 0 0
/data /data/again none bind 0 0
/dev/vdc none swap nofail 0 0
/dev/vdd none swap sw,pri=5 0 0
`, 0o644)
	initrd, rootImage := filepath.Join(dir, "initrd"), filepath.Join(dir, "root.img")
	dataImage, swapImage := filepath.Join(dir, "data.img"), filepath.Join(dir, "swap.img")
	command(t, "sh", "-c", fmt.Sprintf("cd %s && find . | busybox cpio -o -H newc >%s", first, initrd))
	command(t, "cp", initrd, filepath.Join(root, "boot/initrd"))
	command(t, "cp", kernel.Image, filepath.Join(root, "boot/vmlinuz"))
	command(t, "mkfs.ext4", "-q", "-d", root, rootImage, "128M")
	data := filepath.Join(dir, "data")
	write(t, filepath.Join(data, "again/x"), "", 0o644)
	command(t, "mkfs.ext4", "-q", "-d", data, dataImage, "16M")
	command(t, "sh", "-c", "truncate -s 16M "+swapImage+" && mkswap "+swapImage)

	m := net.Machine(vm.Spec{
		Name: "atlas", Kernel: kernel.Image, Initrd: initrd,
		Append: "console=ttyS0 rdinit=/sbin/ssi init=/sbin/ssi root=/dev/vda rootfstype=ext4 ro panic=-1 loglevel=4 ssi.console=shell ssi.watchdog=30",
		Disks:  []vm.Disk{{Path: rootImage}, {Path: dataImage}, {Path: filepath.Join(dir, "none.img")}, {Path: swapImage}},
	})
	write(t, filepath.Join(dir, "none.img"), strings.Repeat("\x00", 1<<20), 0o644)
	m.Start()
	m.Say(`root-check: /dev/vda is clean`)
	m.Say(`root: /dev/vda \(ext4\), continuing with its /sbin/ssi`)
	m.Say(`watchdog: 30s`)
	m.Say(`hostname: atlas`)
	m.Say(`mounts: 3 file systems`)
	m.Say(`swap: 1 areas`)
	m.Say(`boot: done`)
	m.Say(`atlas: press Enter for a shell`)
	m.Type("")
	for _, c := range []struct{ run, want string }{
		{"busybox cat /proc/1/cmdline", "/sbin/ssi"},
		{"busybox cat /run/ssi/boot.json", `"stage":"system","state":"done"`},
		{"busybox mount", "/dev/vda on / type ext4 (rw"},
		{"busybox mount", "/dev/vdb on /data type ext4 (rw,noatime"},
		{"busybox ls /data/again/again", "x"},
		{"busybox cat /proc/sys/kernel/panic_on_oops", "1"},
		{"busybox ls /root /dev/fd/", "/root:"},
		// A role that ends is noted in the kernel's log, and started again.
		{"for p in /proc/[0-9]*; do busybox grep -qx 'ssi.spawn.' $p/cmdline && busybox kill -9 ${p#/proc/}; done; until busybox dmesg | busybox grep 'role ended'; do :; done", "ssi[init]: msg=\"role ended\" op=spawn"},
		{"busybox grep Sig /proc/self/status", "SigBlk:\t0000000000000000"},
		{"busybox ls -l /var/lib/ssi/random-seed", " 512 "},
		{"(cd /data && busybox setsid busybox sleep 1000 >/data/log 2>&1 &) ; busybox cp /sbin/ssi /data/again; echo $?", "0"},
		{"busybox cat /proc/1/status", "VmRSS:"},
	} {
		if out, _ := m.Run(c.run); !strings.Contains(out, c.want) {
			t.Errorf("%s: %q, want %q", c.run, out, c.want)
		} else if c.want == "VmRSS:" {
			t.Log(regexp.MustCompile(`VmRSS:.*kB`).FindString(out))
		}
	}
	for line := range strings.Lines(m.Console().Text()) {
		if regexp.MustCompile(`^\[ +[0-9]+\.[0-9][0-9]\]`).MatchString(line) {
			t.Log(strings.TrimSpace(line))
		}
	}
	m.Type(powerOff)
	m.Off()
	clean := func() {
		t.Helper()
		if text := m.Console().Text(); strings.Contains(text, "shutdown:") || strings.Contains(text, "Kernel panic") || strings.Contains(text, "watchdog did not stop") {
			t.Errorf("the end was not clean:\n%s", m.Console().Tail(20))
		}
	}
	clean()
	for _, image := range []string{rootImage, dataImage} {
		command(t, "e2fsck", "-fn", image)
		if out := command(t, "dumpe2fs", "-h", image); !regexp.MustCompile(`Filesystem state: +clean\n`).MatchString(out) || strings.Contains(out, "needs_recovery") {
			t.Errorf("%s is not clean:\n%s", image, out)
		}
	}

	if out := command(t, "debugfs", "-R", "ls /var/lib/ssi", rootImage); !strings.Contains(out, " clock ") {
		t.Errorf("the time was not saved: %s", out)
	}

	// A disk full of garbage: a shell says why; when the cause is gone, the start goes on.
	write(t, dataImage, strings.Repeat("garbage ", 2<<20), 0o644)
	m.Start()
	m.Say(`mounts: FAILED: /dev/vdb could not be checked \(fsck status 8\)`)
	m.Say(`The start of this machine stops at "mounts": /dev/vdb could not be checked`)
	m.Say(`A shell follows`)
	if out, _ := m.Run("busybox cat /run/ssi/boot.json"); !strings.Contains(out, `"state":"emergency","why":"mounts: /dev/vdb`) {
		t.Errorf("the report: %s", out)
	}
	if out, status := m.Run("busybox sed -i /data/d /etc/fstab"); status != 0 {
		t.Errorf("%s", out)
	}
	m.Type("exit")
	m.Say(`mounts: 1 file systems`)
	m.Say(`entropy: 512 bytes credited`)
	m.Say(`atlas: press Enter for a shell`)
	m.Type("")
	m.Run("busybox touch /new")

	// Another kernel takes over, without the firmware.
	if out, status := m.Run("/sbin/ssi kexec"); status != 0 {
		t.Fatalf("%s", out)
	}
	m.Type("busybox kill -40 1") // SIGRTMIN+6: kexec
	m.Say(`root-check: /dev/vda is clean`)
	m.Say(`atlas: press Enter for a shell`)
	m.Type("")
	if out, _ := m.Run("busybox cat /proc/cmdline; busybox ls /new"); !strings.Contains(out, " again") || !strings.Contains(out, "\n/new") {
		t.Errorf("after kexec: %s", out)
	}
	// Ctrl-Alt-Del: everything ends in order, and the machine is reset.
	keys := []map[string]string{{"type": "qcode", "data": "ctrl"}, {"type": "qcode", "data": "alt"}, {"type": "qcode", "data": "delete"}}
	if _, err := m.QMP(t.Context(), "send-key", map[string]any{"keys": keys}); err != nil {
		t.Fatal(err)
	}
	m.Off()
	clean()
	command(t, "e2fsck", "-fn", rootImage)

	// The disk of root= is full of garbage: a shell says why; when that is repaired, the
	// start goes on. Then somebody presses the power button.
	spec := m.Spec()
	pressed := spec
	pressed.Name, pressed.Disks = "pressed", []vm.Disk{{Path: dataImage}, {Path: rootImage}, spec.Disks[2], spec.Disks[3]}
	pressed.Append = strings.ReplaceAll(spec.Append, "rootfstype=ext4 ", "")
	m = net.Machine(pressed)
	m.Start()
	m.Say(`The start of this machine stops at "root": mount /dev/vda on /root: there is no file system that this kernel knows \(tried .*ext4.*\): .*; is root=/dev/vda of the kernel command line right, and the disk in order\? rootfstype= tells its type`)
	m.Say(`A shell follows`)
	if out, status := m.Run("busybox mv /dev/vdb /dev/vda"); status != 0 {
		t.Errorf("%s", out)
	}
	m.Type("exit")
	m.Say(`atlas: press Enter for a shell`)
	m.Type("")
	if out, status := m.Run(`until busybox dmesg | busybox grep 'name="Power Button"'; do busybox sleep 0.1; done`); status != 0 {
		t.Errorf("%s", out)
	}
	for range 3 {
		if err := m.PowerDown(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	m.Say(`the power button was pressed`)
	m.Off()
	clean()
	command(t, "e2fsck", "-fn", rootImage)

	// PID 1 stands still, frozen with its cgroup: the hardware resets the machine.
	spec.Name, spec.Extra = "still", []string{"-device", "i6300esb"}
	spec.Append = strings.ReplaceAll(spec.Append, "ssi.watchdog=30", "ssi.watchdog=5")
	m = net.Machine(spec)
	m.Start()
	m.Say(`watchdog: 5s`)
	m.Say(`atlas: press Enter for a shell`)
	m.Type("")
	if out, status := m.Run("cd /sys/fs/cgroup && busybox mkdir still && echo 1 >still/cgroup.procs && busybox dmesg | busybox grep -c i6300"); status != 0 {
		t.Fatalf("%s", out)
	}
	m.Type("echo 1 >/sys/fs/cgroup/still/cgroup.freeze")
	ctx, cancel := context.WithTimeout(t.Context(), vmtest.Patience)
	defer cancel()
	if err := m.Event(ctx, "WATCHDOG"); err != nil {
		t.Fatal(err)
	}
	m.Off()
}
