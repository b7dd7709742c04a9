package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupWait is how long the kernel gets to kill or freeze all processes of a
// cgroup.
const cgroupWait = 10 * time.Second

// cgroups is the cgroup v2 tree, by a mount that is attached nowhere: it works
// on hosts that mount cgroup v1 as well, and nothing of the host changes.
type cgroups struct {
	root *os.Root
}

func openCgroups() (*cgroups, error) {
	fsfd, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("lab: the kernel has no cgroup v2 (CONFIG_CGROUPS), or this container may not use it: %w", err)
	}
	defer unix.Close(fsfd)
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return nil, fmt.Errorf("lab: cgroup v2: %w", err)
	}
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, fmt.Errorf("lab: mount cgroup v2: %w", err)
	}
	defer unix.Close(fd)
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, fmt.Errorf("lab: cgroup v2: %w", err)
	}
	return &cgroups{root: root}, nil
}

func (c *cgroups) close() { _ = c.root.Close() }

// create makes the cgroup name and returns its directory, for clone3(2).
func (c *cgroups) create(name string) (*os.File, error) {
	if err := c.root.MkdirAll(name, 0o755); err != nil {
		return nil, fmt.Errorf("lab: make cgroup: %w", err)
	}
	return c.open(name)
}

func (c *cgroups) open(name string) (*os.File, error) {
	f, err := c.root.Open(name)
	if err != nil {
		return nil, fmt.Errorf("lab: cgroup: %w", err)
	}
	return f, nil
}

func (c *cgroups) set(name, file, value string) error {
	f, err := c.root.OpenFile(path.Join(name, file), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("lab: cgroup: %w", err)
	}
	_, err = f.WriteString(value)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("lab: cgroup: %w", err)
	}
	return nil
}

// kill sends SIGKILL to every process in name and below it.
func (c *cgroups) kill(name string) error { return c.set(name, "cgroup.kill", "1") }

// freeze stops or continues every process in name and below it, and returns
// when that is so.
func (c *cgroups) freeze(name string, on bool) error {
	value := "0"
	if on {
		value = "1"
	}
	if err := c.set(name, "cgroup.freeze", value); err != nil {
		return err
	}
	return c.await(name, "frozen "+value)
}

// await waits until cgroup.events of name has the line.
func (c *cgroups) await(name, line string) error {
	f, err := c.root.Open(path.Join(name, "cgroup.events"))
	if err != nil {
		return err
	}
	defer f.Close()
	deadline := time.Now().Add(cgroupWait)
	buf := make([]byte, 256)
	for {
		n, err := f.ReadAt(buf, 0)
		if n == 0 && err != nil {
			return err
		}
		for l := range bytes.Lines(buf[:n]) {
			if string(bytes.TrimSpace(l)) == line {
				return nil
			}
		}
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("lab: cgroup %s: not %q after %v", name, line, cgroupWait)
		}
		// The kernel reports each change of the file as a priority event.
		fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, int(min(left, 100*time.Millisecond).Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lab: cgroup %s: %w", name, err)
		}
	}
}

// remove kills what is left in name, waits for its end and removes name with all
// below it. It is no error if there is no such cgroup.
func (c *cgroups) remove(name string) error {
	err := c.kill(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = c.await(name, "populated 0")
	}
	if err == nil {
		err = c.removeDirs(name)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("lab: remove cgroup %s: %w", name, err)
	}
	return nil
}

func (c *cgroups) removeDirs(name string) error {
	d, err := c.root.Open(name)
	if err != nil {
		return err
	}
	entries, err := d.ReadDir(-1)
	_ = d.Close()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := c.removeDirs(path.Join(name, e.Name())); err != nil {
				return err
			}
		}
	}
	deadline := time.Now().Add(cgroupWait)
	for {
		err := c.root.Remove(name)
		// A process that just died holds its cgroup until it is quite gone.
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}
