package pid1

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// basic is a file system that every program expects.
type basic struct {
	dir, kind string
	flags     uintptr
	data      string
}

func basics() []basic {
	const plain = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	return []basic{
		{"/proc", "proc", plain, ""},
		{"/sys", "sysfs", plain, ""},
		{"/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
		{"/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,gid=5,mode=0620,ptmxmode=0666"},
		{"/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
		{"/sys/fs/cgroup", "cgroup2", plain, "nsdelegate"},
	}
}

// mountBasics mounts what is missing and returns the directories it mounted.
// What fails is part of the error; the rest is mounted all the same.
func mountBasics(list []basic) (done []string, err error) {
	var errs []error
	for _, b := range list {
		switch is, err := mounted(b.dir); {
		case err != nil:
			errs = append(errs, fmt.Errorf("mount %s: %w", b.dir, err))
			continue
		case is:
			continue
		}
		if err := unix.Mount(b.kind, b.dir, b.kind, b.flags, b.data); err != nil {
			errs = append(errs, fmt.Errorf("mount %s: %w", b.dir, err))
			continue
		}
		done = append(done, b.dir)
	}
	return done, errors.Join(errs...)
}

// mounted reports whether dir, which it makes if it is missing, is on another
// file system than its parent.
func mounted(dir string) (bool, error) {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return false, err
	}
	var here, above unix.Stat_t
	if err := unix.Stat(dir, &here); err != nil {
		return false, err
	}
	if err := unix.Stat(filepath.Dir(dir), &above); err != nil {
		return false, err
	}
	return here.Dev != above.Dev, nil
}

// unmount undoes mountBasics. /proc, /sys and /dev are left to the kernel when
// they are busy.
func unmount(dirs []string) {
	for i := len(dirs) - 1; i >= 0; i-- {
		_ = unix.Unmount(dirs[i], unix.MNT_DETACH)
	}
}

// loopbackUp sets the interface lo up.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("interface lo: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("interface lo: %w", err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
		return fmt.Errorf("interface lo: %w", err)
	}
	if req.Uint16()&unix.IFF_UP != 0 {
		return nil
	}
	req.SetUint16(req.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("set interface lo up: %w", err)
	}
	return nil
}
