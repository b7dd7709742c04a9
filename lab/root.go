package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Names in the supervisor's own root, a tmpfs.
const (
	hostRoot = "/host"  // the host's root file system, without its other mounts
	shareDir = "/share" // one directory per Options.Share
	exePath  = "/exe"   // the binary that supervisor and nodes run
	tunPath  = "/dev/tun"
)

// device is a device node to make.
type device struct {
	Name string `json:"name"`
	Mode uint32 `json:"mode"` // with S_IFCHR
	Dev  uint64 `json:"dev"`
}

// enterOwnRoot leaves the host's file systems: the supervisor's root is then a
// tmpfs that holds the host's root file system and nothing of its other mounts,
// which a lab would otherwise keep busy as long as it lives.
func enterOwnRoot(o *Options) (hostFacts, error) {
	var facts hostFacts
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return facts, fmt.Errorf("lab: make mounts private: %w", err)
	}
	facts.devices = nodeDevices()
	root := dirOf(o.Name)
	if err := mountFS("tmpfs", root, unix.MS_NOSUID, "mode=755"); err != nil {
		return facts, err
	}
	for _, dir := range []string{hostRoot, shareDir, "/nodes", "/proc", "/dev"} {
		if err := os.Mkdir(root+dir, 0o755); err != nil {
			return facts, fmt.Errorf("lab: %w", err)
		}
	}
	if err := bind("/", root+hostRoot); err != nil {
		return facts, err
	}
	// So that a dynamically linked binary (of a test with -race) runs as well.
	for _, dir := range []string{"lib", "lib64", "usr", "etc"} {
		if err := os.Symlink("host/"+dir, filepath.Join(root, dir)); err != nil {
			return facts, fmt.Errorf("lab: %w", err)
		}
	}
	for i, dir := range o.Share {
		at := filepath.Join(root, shareDir, strconv.Itoa(i))
		if err := os.Mkdir(at, 0o755); err != nil {
			return facts, fmt.Errorf("lab: %w", err)
		}
		if err := bind(dir, at); err != nil {
			return facts, err
		}
	}
	if err := takeBinary(o.Binary, root+exePath); err != nil {
		return facts, err
	}
	if err := mountFS("proc", root+"/proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return facts, err
	}
	for _, d := range []device{{os.DevNull, 0o666, unix.Mkdev(1, 3)}, {tunPath, 0o600, unix.Mkdev(10, 200)}} {
		if err := unix.Mknod(root+d.Name, unix.S_IFCHR|d.Mode, int(d.Dev)); err != nil {
			return facts, fmt.Errorf("lab: make a device node: %w", err)
		}
	}
	if err := pivot(root); err != nil {
		return facts, err
	}
	// Links in the host's root (/sbin → usr/sbin) must stay links in the nodes.
	sbin := "/sbin"
	if to, err := os.Readlink(hostRoot + sbin); err == nil {
		sbin = filepath.Join("/", to)
	}
	facts.ssi = filepath.Join(sbin, "ssi")
	return facts, nil
}

// pivot makes root the root directory of this mount namespace and lets go of the
// old one.
func pivot(root string) error {
	if err := os.Chdir(root); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	// The old root comes to lie on top of the new one and is taken off there.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("lab: change the root (pivot_root; not possible from an initramfs): %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("lab: leave the old root: %w", err)
	}
	return os.Chdir("/")
}

// takeBinary makes the binary appear at the path at: by a bind mount, so that it
// shares its pages with the host's, or by a copy if its file was removed since.
func takeBinary(binary, at string) error {
	f, err := os.OpenFile(at, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer f.Close()
	if err := bind(binary, at); !errors.Is(err, unix.ENOENT) {
		return err
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer self.Close()
	if _, err := io.Copy(f, self); err != nil {
		return fmt.Errorf("lab: copy the binary: %w", err)
	}
	return f.Close()
}

// mountFS mounts a new file system and names the missing one.
func mountFS(fstype, at string, flags uintptr, data string) error {
	err := unix.Mount(fstype, at, fstype, flags, data)
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("lab: the kernel has no file system %q: load its module (`modprobe %s`)", fstype, fstype)
	}
	if err != nil {
		return fmt.Errorf("lab: mount %s at %s: %w", fstype, at, err)
	}
	return nil
}

func bind(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("lab: bind %s: %w", from, err)
	}
	return nil
}

// nodeDevices is what a node's /dev holds. Devices with numbers given out at run
// time are taken from the host; one that the host lacks is left out.
func nodeDevices() []device {
	chr := func(name string, major, minor uint32) device {
		return device{name, unix.S_IFCHR | 0o666, unix.Mkdev(major, minor)}
	}
	list := []device{
		chr("null", 1, 3), chr("zero", 1, 5), chr("full", 1, 7),
		chr("random", 1, 8), chr("urandom", 1, 9), chr("tty", 5, 0),
		chr("fuse", 10, 229), chr("net/tun", 10, 200),
	}
	for _, name := range []string{"userfaultfd", "cuse"} {
		var st unix.Stat_t
		if err := unix.Stat("/dev/"+name, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR {
			list = append(list, device{name, unix.S_IFCHR | 0o600, st.Rdev})
		}
	}
	return list
}
