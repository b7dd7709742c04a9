package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// nodeMount is one line of a node's mount table.
type nodeMount struct {
	fstype, at string
	flags      uintptr
	data       string
}

// nodeMounts are the mounts of every node, new at each start.
func nodeMounts() []nodeMount {
	const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	return []nodeMount{
		{"proc", "/proc", quiet, ""},
		{"sysfs", "/sys", quiet | unix.MS_RDONLY, ""}, // its files are the host's
		{"cgroup2", "/sys/fs/cgroup", quiet, ""},
		{"tmpfs", "/dev", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=755,size=4m"},
		{"devpts", "/dev/pts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,gid=5,mode=620,ptmxmode=666"},
		{"tmpfs", "/dev/shm", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"mqueue", "/dev/mqueue", quiet, ""},
		{"tmpfs", "/run", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
	}
}

// mountNode lays out the root file system of a node and makes it the root.
func mountNode(c *nodeConfig) error {
	// The cgroup namespace belongs to this thread, the one that will exec.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("lab: make a cgroup namespace: %w", err)
	}
	if err := pivot(c.Root); err != nil {
		return err
	}
	if err := emptyDir("/tmp", c.Keep); err != nil {
		return err
	}
	for _, m := range nodeMounts() {
		if err := os.MkdirAll(m.at, 0o755); err != nil && m.fstype != "cgroup2" {
			return fmt.Errorf("lab: %w", err)
		}
		if err := mountFS(m.fstype, m.at, m.flags, m.data); err != nil {
			return err
		}
	}
	if err := makeDev(c.Devices); err != nil {
		return err
	}
	for _, dir := range []string{"/run/lock", "/run/ssi"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	// A node may not reset the host.
	if err := bind(os.DevNull, "/proc/sysrq-trigger"); !errors.Is(err, unix.ENOENT) { // a kernel without it
		return err
	}
	return nil
}

func makeDev(devices []device) error {
	for _, d := range devices {
		path := filepath.Join("/dev", d.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
		if err := unix.Mknod(path, d.Mode, int(d.Dev)); err != nil {
			return fmt.Errorf("lab: make %s: %w", path, err)
		}
		if err := os.Chmod(path, os.FileMode(d.Mode&0o777)); err != nil { // the umask took some
			return fmt.Errorf("lab: %w", err)
		}
	}
	for _, l := range [][2]string{
		{"pts/ptmx", "ptmx"}, {"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"},
		{"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"},
		{"/proc/1/fd/1", "console"}, // the pipe to the supervisor
	} {
		if err := os.Symlink(l[0], filepath.Join("/dev", l[1])); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	return nil
}

// emptyDir removes what a directory holds, as a boot does with /tmp, but for what
// leads to one of the paths to keep.
func emptyDir(dir string, keep []string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if slices.ContainsFunc(keep, func(k string) bool { return strings.HasPrefix(k+"/", path+"/") }) {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	return nil
}
