package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/keeper"
)

const (
	// setupWait is how long Setup waits for the role mount.
	setupWait = 10 * time.Second
	setupPoll = 10 * time.Millisecond
	// clusterDir is where the procfs of each node is: /cluster/nodeN/proc.
	clusterDir = "/cluster"
)

// Setup puts the calling thread, and so the processes that it creates, into the
// view: the mount namespace with the clusterwide /proc. The first Setup since the start of the
// node makes it, the others enter it. The thread must be locked (runtime.LockOSThread), have
// its own root and working directory (unshare(2), CLONE_FS), and see a plain proc(5) at /proc; its working
// directory becomes /. Once it has returned nil, only this thread is in the view.
//
// Mounts made later in the namespace of the caller appear in the view if they
// are shared there (mount_namespaces(7)); mounts made in the view do not appear outside.
//
// With an error the thread is where it was, and processes created by it see their own
// node only.
func Setup(log *slog.Logger, keep *keeper.Client) error { return setup(log, keep, setupWait) }

func setup(log *slog.Logger, keep *keeper.Client, wait time.Duration) error {
	view, err := keep.Take(keptView)
	switch {
	case err == nil:
		defer func() { _ = view.Close() }()
		// An earlier Setup may have ended before it dropped this.
		return errors.Join(enter(view), keep.Drop(keptMount))
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("view: %w", err)
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return fmt.Errorf("view: the kernel has no FUSE, or /dev has not (`modprobe fuse`): %w", err)
	}
	for deadline := time.Now().Add(wait); time.Now().Before(deadline); time.Sleep(setupPoll) {
		mount, err := keep.Take(keptMount)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("view: %w", err)
		}
		bound, err := keep.Take(keptBound)
		if errors.Is(err, fs.ErrNotExist) { // the role mount is making it anew
			_ = mount.Close()
			continue
		}
		if err == nil {
			err = build(log, keep, mount, bound)
			_ = bound.Close()
		}
		_ = mount.Close()
		if err == nil {
			return nil
		}
		// A file system that was mounted once cannot be mounted again: when its last
		// reference goes, the role mount makes another one.
		err = errors.Join(err, keep.Drop(keptMount))
		if !errors.Is(err, errUsed) {
			return fmt.Errorf("view: %w", err)
		}
	}
	return fmt.Errorf("view: the mount role left no file system with PID 1 within %s; is the role running?", wait)
}

// errUsed is the error of a file system that an earlier Setup mounted, which
// ended before the view was complete.
var errUsed = errors.New("the file system was mounted already")

// enter puts the calling thread into a mount namespace.
func enter(view *os.File) error {
	if err := unix.Setns(int(view.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter the view: setns: %w", err)
	}
	return nil
}

// build makes the view around the calling thread and has PID 1 keep it.
func build(log *slog.Logger, keep *keeper.Client, mount, bound *os.File) (err error) {
	before, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		return err
	}
	defer func() { _ = before.Close() }()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, enter(before))
		}
	}()
	view, err := os.Open("/proc/thread-self/ns/mnt") // as long as /proc is plain
	if err != nil {
		return err
	}
	defer func() { _ = view.Close() }()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make the mounts of the view follow: %w", err)
	}
	if err := mountAll(mount, bound); err != nil {
		return err
	}
	if err := placeCluster(); err != nil {
		log.Warn("no /cluster/nodeN/proc: make an empty directory /cluster", "op", "view", "err", err)
	}
	if err := keep.Put(keptView, view); err != nil {
		return err
	}
	return keep.Drop(keptMount)
}

// mountAll puts the file system on /proc and the plain one, with what is mounted
// below it, into it.
func mountAll(mount, bound *os.File) error {
	names, err := io.ReadAll(io.NewSectionReader(bound, 0, maxBound))
	if err != nil {
		return err
	}
	plain, err := unix.OpenTree(unix.AT_FDCWD, "/proc", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("open_tree /proc: %w", err)
	}
	defer func() { _ = unix.Close(plain) }()
	err = unix.MoveMount(int(mount.Fd()), "", unix.AT_FDCWD, "/proc", unix.MOVE_MOUNT_F_EMPTY_PATH)
	if errors.Is(err, unix.EINVAL) {
		return errUsed
	}
	if err != nil {
		return fmt.Errorf("mount on /proc: %w", err)
	}
	if err := unix.MoveMount(plain, "", unix.AT_FDCWD, "/proc/.local", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount on /proc/.local: %w", err)
	}
	for name := range bytes.FieldsSeq(names) {
		from, to := "/proc/.local/"+string(name), "/proc/"+string(name)
		if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s: %w", to, err)
		}
	}
	return nil
}

// placeCluster mounts /cluster. The directory is made if it is missing: the only thing that
// stays on the root file system.
func placeCluster() error {
	if err := os.Mkdir(clusterDir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := unix.Mount("/proc/.cluster", clusterDir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", clusterDir, err)
	}
	return nil
}

// Local puts the calling thread, and what is executed by it, into a mount
// namespace of its own in which /proc shows the processes of this node only: for
// localview. The thread stays locked (runtime.LockOSThread). Where /proc is plain it
// does nothing. Only root may: otherwise the error is EPERM.
func Local() error {
	if _, err := os.Lstat("/proc/.local"); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("local view: unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("local view: %w", err)
	}
	if err := unix.Mount("/proc/.local", "/proc", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("local view: bind /proc: %w", err)
	}
	return nil
}

// Views are the mount namespaces that processes may be created in: that of the
// calling thread, which Setup put into the view, and one as Local makes. The caller
// closes both.
func Views() (users, local *os.File, err error) {
	const own = "/proc/thread-self/ns/mnt"
	if users, err = os.Open(own); err != nil {
		return nil, nil, fmt.Errorf("view: %w", err)
	}
	if err = Local(); err == nil {
		local, err = os.Open(own)
		err = errors.Join(err, enter(users))
	}
	if err != nil {
		_ = users.Close()
		return nil, nil, err
	}
	return users, local, nil
}
