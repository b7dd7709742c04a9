package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Directories of a node.
const (
	linkDir    = "/usr/lib/ssi/bin" // links to the commands
	configDir  = "/etc/ssi"
	stateDir   = "/var/lib/ssi"
	joinPath   = "/etc/ssi/join"
	tokensPath = "/etc/ssi/lab-tokens" // what `ssi cluster init` leaves for the lab
	socketPath = "/run/ssi/ssi.sock"
	nodePath   = linkDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// layDisk makes the node's disk and mounts its root file system, once in the life
// of a lab: they stay while the node is off.
func (m *machine) layDisk() error {
	disk, root := filepath.Join(m.dir(), "disk"), filepath.Join(m.dir(), "root")
	for _, dir := range []string{disk, root} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	if err := mountFS("tmpfs", disk, unix.MS_NOSUID, "mode=755,size="+strconv.FormatInt(m.s.opts.Disk, 10)); err != nil {
		return err
	}
	if err := layer(disk, "root", hostRoot, root); err != nil {
		return err
	}
	for i, dir := range m.s.opts.Share {
		at := m.pathIn(dir)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return fmt.Errorf("lab: share %s: %w", dir, err)
		}
		name := strconv.Itoa(i)
		if err := layer(disk, "share"+name, filepath.Join(shareDir, name), at); err != nil {
			return err
		}
	}
	ssi := m.pathIn(m.s.host.ssi)
	if err := os.WriteFile(ssi, nil, 0o755); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if err := bind(exePath, ssi); err != nil {
		return err
	}
	return m.writeFiles()
}

// layer mounts at the path at the directory lower with a writable layer of its
// own on the disk.
func layer(disk, name, lower, at string) error {
	upper, work := filepath.Join(disk, name, "upper"), filepath.Join(disk, name, "work")
	if err := os.MkdirAll(work, 0o755); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if err := likeHost(lower, upper); err != nil {
		return err
	}
	if name == "root" {
		if err := hide(lower, upper); err != nil {
			return err
		}
	}
	return mountFS("overlay", at, 0, "redirect_dir=on,index=off,metacopy=off,lowerdir="+lower+",upperdir="+upper+",workdir="+work)
}

// hide covers the host's own state with empty directories.
func hide(lower, upper string) error {
	for _, d := range []struct {
		path string
		mode os.FileMode
	}{
		{"/tmp", 0o777 | os.ModeSticky}, {"/run", 0o755}, {configDir, 0o755}, {stateDir, 0o700},
	} {
		parent := upper
		for _, name := range splitPath(filepath.Dir(d.path)) {
			parent = filepath.Join(parent, name)
			rel, err := filepath.Rel(upper, parent)
			if err != nil {
				return err
			}
			if err := likeHost(filepath.Join(lower, rel), parent); err != nil {
				return err
			}
		}
		dir := filepath.Join(upper, d.path)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
		if err := os.Chmod(dir, d.mode); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
		// "Whiteouts and opaque directories" in the kernel's overlayfs document.
		if err := unix.Setxattr(dir, "trusted.overlay.opaque", []byte("y"), 0); err != nil {
			return fmt.Errorf("lab: hide %s: %w", d.path, err)
		}
	}
	return nil
}

func splitPath(p string) []string {
	if p == "/" {
		return nil
	}
	dir, name := filepath.Split(p)
	return append(splitPath(filepath.Clean(dir)), name)
}

// likeHost makes the directory at with the owner and mode of the host's, which
// it takes the place of.
func likeHost(host, at string) error {
	if err := os.Mkdir(at, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("lab: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(host, &st); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return fmt.Errorf("lab: %s: %w", host, err)
	}
	if err := os.Chown(at, int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if err := unix.Chmod(at, st.Mode&0o7777); err != nil {
		return fmt.Errorf("lab: %s: %w", at, err)
	}
	return nil
}

// writeFiles writes what a node finds on its disk at first boot.
func (m *machine) writeFiles() error {
	config := fmt.Sprintf("# Written by ssi lab.\nprofile = %q\nname = %q\naddr = %q\n", m.s.opts.Profile, Host(m.n), Addr(m.n)+":"+icsPort)
	for _, f := range []struct {
		path, text string
	}{
		{"/etc/hostname", Host(m.n) + "\n"},
		{configDir + "/ssi.toml", config},
		{"/etc/profile.d/ssi-lab.sh", "PATH=" + linkDir + ":$PATH\n"},
	} {
		if err := writeNew(m.pathIn(f.path), f.text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// writeNew writes a file that replaces what the host has there, also a link.
func writeNew(path, text string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("lab: %w", err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}

// hostsFile is /etc/hosts of a lab of so many nodes.
func hostsFile(ms []*machine) string {
	var b bytes.Buffer
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, m := range ms {
		fmt.Fprintf(&b, "%s\t%s\n", Addr(m.n), Host(m.n))
	}
	return b.String()
}

// writeHosts writes /etc/hosts of all nodes whose disk is there; the disk of a
// new node gets it when it is laid.
func (s *supervisor) writeHosts() error {
	ms := s.all()
	text := hostsFile(ms)
	for _, m := range ms {
		m.op.Lock()
		err := error(nil)
		if m.laid {
			err = writeNew(m.pathIn("/etc/hosts"), text, 0o644)
		}
		m.op.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}
