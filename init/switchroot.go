package pid1

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// switchRoot makes the file system mounted on newRoot the root, frees the memory
// of the initramfs, and executes program there in place of this process. It
// returns only with an error. See switch_root(8).
func switchRoot(newRoot, program string) error {
	// Nothing is touched before it is certain that there is a root to go on in.
	if is, err := mounted(newRoot); err != nil {
		return fmt.Errorf("new root: %w", err)
	} else if !is {
		return fmt.Errorf("nothing is mounted on %s", newRoot)
	}
	// A mount below a shared one cannot be moved.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make / private: %w", err)
	}
	for _, dir := range []string{"/dev", "/proc", "/sys", "/run"} {
		if is, err := mounted(dir); err != nil || !is {
			continue
		}
		if err := unix.Mount(dir, newRoot+dir, "", unix.MS_MOVE, ""); err != nil { // no such directory there
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	}
	old, err := os.Open("/")
	if err != nil {
		return err
	}
	defer func() { _ = old.Close() }()
	if err := unix.Chdir(newRoot); err != nil {
		return fmt.Errorf("enter %s: %w", newRoot, err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move %s to /: %w", newRoot, err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot to %s: %w", newRoot, err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter the new root: %w", err)
	}
	emptyMemory(old)
	// The environment is what the kernel gives to init.
	return fmt.Errorf("execute %s: %w", program, unix.Exec(program, []string{program}, []string{"HOME=/", "TERM=linux"}))
}

// emptyMemory removes all files of an initramfs; of anything but a file system
// in memory, nothing, and nothing of what is mounted in it.
func emptyMemory(root *os.File) {
	var fs unix.Statfs_t
	var st unix.Stat_t
	fd := int(root.Fd())
	if unix.Fstatfs(fd, &fs) != nil || unix.Fstat(fd, &st) != nil {
		return
	}
	if kind := fs.Type; kind == unix.RAMFS_MAGIC || kind == unix.TMPFS_MAGIC {
		removeBelow(root, st.Dev, 0)
	}
}

// maxDepth is how deep removeBelow goes.
const maxDepth = 64

func removeBelow(dir *os.File, dev uint64, depth int) {
	for depth < maxDepth {
		names, err := dir.Readdirnames(256)
		for _, name := range names {
			removeOne(dir, name, dev, depth)
		}
		if err == io.EOF || err != nil {
			return
		}
	}
}

func removeOne(dir *os.File, name string, dev uint64, depth int) {
	var st unix.Stat_t
	at := int(dir.Fd())
	if unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Dev != dev {
		return
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		_ = unix.Unlinkat(at, name, 0)
		return
	}
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	sub := os.NewFile(uintptr(fd), name)
	removeBelow(sub, dev, depth+1)
	_ = sub.Close()
	_ = unix.Unlinkat(at, name, unix.AT_REMOVEDIR)
}
