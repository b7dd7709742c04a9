package vmtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"ssi/internal/vm"
)

const (
	debianTime = 10 * time.Minute // to fetch and unpack Debian
	diskTime   = 3 * time.Minute  // to write a file system
	debian     = "bookworm"
	// debianPackages are those that a first node has beside the required ones.
	debianPackages = "bash,procps,psmisc,iproute2,iputils-ping,busybox-static,ipxe,pxelinux,syslinux-common,systemd-boot-efi,e2fsprogs,kmod,util-linux,login"
)

// DebianRoot is the root of a small Debian, as a tar file, which it makes once.
// It skips the test if that cannot be had.
func DebianRoot(t testing.TB) string {
	t.Helper()
	dir := cacheDir(t, "debian")
	path := filepath.Join(dir, debian+".tar")
	ctx, cancel := testContext(t)
	defer cancel()
	held, err := lock(ctx, cacheDir(t, "locks"), "debian")
	if err != nil {
		t.Fatalf("root of Debian: %v", err)
	}
	defer held.Close()
	if _, err := os.Stat(path); err == nil {
		return path
	} else if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("skipped: mmdebstrap needs root for device nodes")
	}
	ctx, cancel = context.WithTimeout(ctx, debianTime)
	defer cancel()
	// The name must end in .tar: mmdebstrap goes by it.
	temp := filepath.Join(dir, "new.tar")
	cmd := exec.CommandContext(ctx, "mmdebstrap", "--variant=minbase", "--include="+debianPackages, debian, temp)
	if out, err := cmd.CombinedOutput(); err != nil {
		_ = os.Remove(temp)
		t.Skipf("skipped: no Debian root: %v: %s", err, lastLines(out))
	}
	if err := os.Rename(temp, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func lastLines(b []byte) string {
	const most = 500
	return string(b[max(0, len(b)-most):])
}

// DebianDisk makes a disk with one ext4 file system: the Debian root with the
// kernel and its modules, after change has changed it.
func DebianDisk(t testing.TB, k Kernel, change func(root string) error) vm.Disk {
	t.Helper()
	tar := DebianRoot(t)
	dir := t.TempDir()
	root, disk := filepath.Join(dir, "root"), filepath.Join(dir, "disk.img")
	ctx, cancel := context.WithTimeout(t.Context(), diskTime)
	defer cancel()
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, lastLines(out))
		}
	}
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	run("tar", "-C", root, "-xf", tar)
	boot, modules := filepath.Join(root, "boot/vmlinuz-"+k.Version), filepath.Join(root, "lib/modules")
	for _, d := range []string{filepath.Dir(boot), modules} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run("cp", k.Image, boot)
	run("cp", "-a", k.Modules, modules)
	if err := change(root); err != nil {
		t.Fatal(err)
	}
	const size = 1200 << 20
	if err := vm.CreateDisk(disk, size); err != nil {
		t.Fatal(err)
	}
	run("mke2fs", "-q", "-F", "-t", "ext4", "-L", "ssi-root", "-d", root, disk)
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(fmt.Errorf("remove the unpacked root: %w", err))
	}
	return vm.Disk{Path: disk, Format: "raw"}
}
