package install

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	suffix  = ".ssi-new~" // of a file that is being written; grub-mkconfig and run-parts skip what ends in ~
	maxFile = 64 << 20    // of a file that is read
)

// disk is the root directory that is changed. Paths are absolute inside of it.
type disk struct {
	root *os.Root
	step func() error // called before each change: tests end a run there; nil does nothing
}

func (d *disk) change() error {
	if d.step == nil {
		return nil
	}
	return d.step()
}

// rel is the path as os.Root wants it.
func rel(p string) string {
	if p = strings.TrimPrefix(path.Clean(p), "/"); p == "" {
		return "."
	}
	return p
}

// thing is what stands at a path.
type thing struct {
	kind    string // "" nothing, "file", "dir", "link", "other"
	content []byte // of a file
	target  string // of a link
	mode    fs.FileMode
}

// hash identifies what a file holds or where a link leads.
func (t thing) hash() string {
	data := t.content
	if t.kind == kindLink {
		data = []byte(t.target)
	}
	sum := sha256.Sum256(data)
	return t.kind + ":" + hex.EncodeToString(sum[:])
}

// look reads what stands at a path, which may be nothing.
func (d *disk) look(p string) (thing, error) {
	info, err := d.root.Lstat(rel(p))
	if errors.Is(err, fs.ErrNotExist) {
		return thing{}, nil
	}
	if err != nil {
		return thing{}, err
	}
	t := thing{mode: info.Mode().Perm()}
	switch {
	case info.IsDir():
		t.kind = kindDir
	case info.Mode()&fs.ModeSymlink != 0:
		t.kind = kindLink
		t.target, err = d.root.Readlink(rel(p))
	case info.Mode().IsRegular():
		t.kind = kindFile
		t.content, err = d.read(p)
	default:
		t.kind = "other"
	}
	return t, err
}

func (d *disk) read(p string) ([]byte, error) {
	f, err := d.root.Open(rel(p))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", p, maxFile)
	}
	return b, err
}

// isDir and isFile follow links.
func (d *disk) isDir(p string) bool {
	info, err := d.root.Stat(rel(p))
	return err == nil && info.IsDir()
}

func (d *disk) isFile(p string) bool {
	info, err := d.root.Stat(rel(p))
	return err == nil && info.Mode().IsRegular()
}

// list gives the names in a directory; none if it is not there.
func (d *disk) list(p string) []string {
	f, err := d.root.Open(rel(p))
	if err != nil {
		return nil
	}
	defer f.Close()
	names, err := f.Readdirnames(100_000)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	return names
}

// write puts a file in place in one step and makes it last.
func (d *disk) write(p string, content []byte, mode fs.FileMode) error {
	tmp := p + suffix
	if err := d.remove(tmp); err != nil {
		return err
	}
	if err := d.change(); err != nil {
		return err
	}
	f, err := d.root.OpenFile(rel(tmp), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = chmod(f, mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, d.root.Remove(rel(tmp)))
	}
	return d.rename(tmp, p)
}

// chmod sets the mode; FAT, which boot partitions have, takes few of them.
func chmod(f *os.File, mode fs.FileMode) error {
	err := f.Chmod(mode)
	var on unix.Statfs_t
	if errors.Is(err, fs.ErrPermission) && unix.Fstatfs(int(f.Fd()), &on) == nil && on.Type == unix.MSDOS_SUPER_MAGIC {
		return nil
	}
	return err
}

// link puts a symbolic link in place in one step.
func (d *disk) link(target, p string) error {
	tmp := p + suffix
	if err := d.remove(tmp); err != nil {
		return err
	}
	if err := d.change(); err != nil {
		return err
	}
	if err := d.root.Symlink(target, rel(tmp)); err != nil {
		return err
	}
	return d.rename(tmp, p)
}

func (d *disk) rename(from, to string) error {
	if err := d.change(); err != nil {
		return err
	}
	if err := d.root.Rename(rel(from), rel(to)); err != nil {
		return err
	}
	return d.sync(path.Dir(to))
}

func (d *disk) mkdir(p string, mode fs.FileMode) error {
	if err := d.change(); err != nil {
		return err
	}
	if err := d.root.Mkdir(rel(p), mode); err != nil {
		return err
	}
	if err := d.root.Chmod(rel(p), mode); err != nil { // whatever the umask is
		return err
	}
	return d.sync(path.Dir(p))
}

// remove removes a file, a link or an empty directory, if it is there.
func (d *disk) remove(p string) error {
	if _, err := d.root.Lstat(rel(p)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := d.change(); err != nil {
		return err
	}
	if err := d.root.Remove(rel(p)); err != nil {
		return err
	}
	return d.sync(path.Dir(p))
}

// removeAll removes a tree, if it is there.
func (d *disk) removeAll(p string) error {
	if _, err := d.root.Lstat(rel(p)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := d.change(); err != nil {
		return err
	}
	return d.root.RemoveAll(rel(p))
}

// sync makes the names in a directory last. Some file systems (FAT) cannot.
func (d *disk) sync(dir string) error {
	f, err := d.root.Open(rel(dir))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}

// lock keeps a second run out until release.
func (d *disk) lock() (release func(), err error) {
	f, err := d.root.Open(rel(path.Dir(StateDir)))
	if err != nil {
		return nil, fmt.Errorf("this does not look like the root of a Debian system: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("another install or uninstall works on it: lock %s: %w", path.Dir(StateDir), err)
	}
	return func() {
		// Closing is not enough: a child that was just forked has the file, too.
		_ = unix.Flock(int(f.Fd()), unix.LOCK_UN)
		_ = f.Close()
	}, nil
}
