package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/sys"
)

const (
	// unmountTime is how long one file system may take to be unmounted: the
	// server of a remote one may be gone.
	unmountTime = 5 * time.Second
	// maxHolders is how many processes are named that hold a file system.
	maxHolders = 5
)

// save is what the next start gets from this one: the time and a random seed.
func (b *boot) save() int {
	old, _ := readSeed(filepath.Join(b.o.StateDir, seedFile))
	err := errors.Join(saveSeed(b.o.StateDir, old), saveClock(b.o.StateDir, time.Now()))
	if err != nil {
		b.log.Warn("time and random seed are not saved", "op", "save", "err", err)
		return 1
	}
	return 0
}

// end is the last role of a machine: it leaves the file systems clean. Every other
// process is gone; what still holds one is named.
func (b *boot) end() int {
	status := 0
	say := func(format string, args ...any) {
		status = 1
		_, _ = fmt.Fprintf(b.o.Out, "[%8.2f] shutdown: "+format+"\r\n", append([]any{sinceKernel().Seconds()}, args...)...)
	}
	_ = os.Chdir("/")
	if text, err := os.ReadFile("/proc/swaps"); err == nil {
		for _, path := range swapsInUse(string(text)) {
			if err := sys.Swapoff(path); err != nil {
				say("swap on %s stays in use: %v", path, err)
			}
		}
	}
	unix.Sync()
	list, err := mounts()
	if err != nil {
		say("%v", err)
	}
	for _, m := range slices.Backward(list) {
		if m.api() {
			continue
		}
		if err := within(unmountTime, func() error { return unix.Unmount(m.dir, unix.UMOUNT_NOFOLLOW) }); err != nil {
			// What cannot be taken away can still be clean.
			rerr := within(unmountTime, func() error { return unix.Mount("", m.dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "") })
			if rerr != nil {
				say("%s (%s on %s) cannot be unmounted: %v%s", m.dir, m.kind, m.source, err, heldBy(m.dev))
			} else {
				say("%s (%s on %s) stays mounted, read-only: %v%s", m.dir, m.kind, m.source, err, heldBy(m.dev))
			}
		}
	}
	if root, ok := mountAt("/"); ok && !inMemory() {
		if err := within(unmountTime, func() error { return unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY, "") }); err != nil {
			say("the root file system (%s on %s) stays writable: %v%s", root.kind, root.source, err, heldBy(root.dev))
		}
	}
	return status
}

// api reports whether a mount is left to the kernel: it has no data on a disk.
func (m mounted) api() bool {
	switch m.kind {
	case "proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "tmpfs", "ramfs", "rootfs", "mqueue", "securityfs",
		"debugfs", "tracefs", "bpf", "pstore", "efivarfs", "configfs", "binfmt_misc", "hugetlbfs", "autofs", "nsfs", "fusectl", "rpc_pipefs":
		return m.dir != "/tmp" // as a tmpfs it may hold swapped pages and other mounts' sources
	}
	return m.dir == "/"
}

// within runs f for at most limit. If that blocks in the kernel longer, its
// goroutine ends with this process, which is the machine's last.
func within(limit time.Duration, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		return fmt.Errorf("not done within %s", limit)
	}
}

// heldBy names the processes that use a file system, MAJOR:MINOR.
func heldBy(dev string) string {
	list := holders("/proc", dev)
	if len(list) == 0 {
		return "; no process holds it"
	}
	return "; held by " + strings.Join(list, ", ")
}

// holders looks for open files, directories, programs and mapped files on a file
// system, as fuser(1) does.
func holders(proc, dev string) []string {
	major, minor, _ := strings.Cut(dev, ":")
	ma, err1 := strconv.ParseUint(major, 10, 32)
	mi, err2 := strconv.ParseUint(minor, 10, 32)
	entries, err3 := os.ReadDir(proc)
	if errors.Join(err1, err2, err3) != nil {
		return nil
	}
	want := unix.Mkdev(uint32(ma), uint32(mi))
	on := func(path string) bool {
		var st unix.Stat_t
		return unix.Stat(path, &st) == nil && st.Dev == want
	}
	var list []string
	for _, e := range entries {
		dir := filepath.Join(proc, e.Name())
		if strings.Trim(e.Name(), "0123456789") != "" || e.Name() == strconv.Itoa(os.Getpid()) {
			continue
		}
		how := ""
		for _, name := range []string{"exe", "cwd", "root"} {
			if how == "" && on(filepath.Join(dir, name)) {
				how = name
			}
		}
		if fds, _ := os.ReadDir(filepath.Join(dir, "fd")); how == "" {
			for _, fd := range fds {
				if on(filepath.Join(dir, "fd", fd.Name())) {
					how, _ = os.Readlink(filepath.Join(dir, "fd", fd.Name()))
					break
				}
			}
		}
		if maps, _ := readLimited(filepath.Join(dir, "maps"), 4<<20); how == "" && strings.Contains(maps, fmt.Sprintf(" %02x:%02x ", ma, mi)) {
			how = "a mapped file"
		}
		if how == "" {
			continue
		}
		comm, _ := readLimited(filepath.Join(dir, "comm"), 64)
		list = append(list, cut(fmt.Sprintf("%s (%s: %s)", strings.TrimSpace(comm), e.Name(), how)))
		if len(list) == maxHolders {
			return append(list, "…")
		}
	}
	return list
}
