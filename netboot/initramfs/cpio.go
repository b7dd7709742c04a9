package initramfs

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	programPath = "sbin/ssi"
	// MaxEntries is how many files, directories and links an archive may have.
	MaxEntries = 1 << 17
	// MaxFileSize is how many bytes a file may have: the size field of newc.
	MaxFileSize = math.MaxUint32
	// maxPath is PATH_MAX with its NUL: init/initramfs.c passes over longer names.
	maxPath = 4096
)

// entry is one file of an archive.
type entry struct {
	path string // without a slash at its start
	mode uint32 // type and permissions, as st_mode
	dev  [2]uint32
	// open gives the content and its size; nil is an empty file.
	open func() (io.ReadCloser, int64, error)
}

// tree collects entries by their paths.
type tree map[string]entry

// cleanPath is a path in the archive, without a slash at its start.
func cleanPath(p string) (string, error) {
	if !strings.HasPrefix(p, "/") || strings.ContainsRune(p, 0) || len(p) >= maxPath {
		return "", fmt.Errorf("path %.100q: it must be absolute, below %d bytes and without NUL", p, maxPath)
	}
	clean := strings.TrimPrefix(path.Clean(p), "/")
	if clean == "" {
		return "", fmt.Errorf("path %q is the root itself", p)
	}
	return clean, nil
}

// put adds an entry and the directories above it. The same path twice is a
// mistake; a directory that is there stays as it is.
func (t tree) put(e entry) error {
	clean, err := cleanPath("/" + e.path)
	if err != nil {
		return err
	}
	e.path = clean
	if old, ok := t[clean]; ok {
		if old.mode&unix.S_IFMT == unix.S_IFDIR && e.mode&unix.S_IFMT == unix.S_IFDIR {
			return nil
		}
		return fmt.Errorf("/%s is in the archive twice", clean)
	}
	if len(t) >= MaxEntries {
		return fmt.Errorf("more than %d files", MaxEntries)
	}
	if dir := path.Dir(clean); dir != "." {
		if above, ok := t[dir]; !ok {
			if err := t.put(entry{path: dir, mode: unix.S_IFDIR | 0o755}); err != nil {
				return err
			}
		} else if above.mode&unix.S_IFMT != unix.S_IFDIR {
			return fmt.Errorf("/%s: /%s is no directory", clean, dir)
		}
	}
	t[clean] = e
	return nil
}

// bytesOf is the content of an entry that is in memory.
func bytesOf(b []byte) func() (io.ReadCloser, int64, error) {
	return func() (io.ReadCloser, int64, error) {
		return io.NopCloser(bytes.NewReader(b)), int64(len(b)), nil
	}
}

// archive writes a tree as cpio, in the order of paths, which has directories
// before what is in them. The program comes before all else: what does not fit into
// the memory of a machine is missing, and the program can say so.
func (t tree) archive(w io.Writer) error {
	out := &cpioWriter{w: w}
	paths := make([]string, 0, len(t))
	for p := range t {
		paths = append(paths, p)
	}
	later := func(p string) int {
		if p == "init" || p == path.Dir(programPath) || p == programPath {
			return 0
		}
		return 1
	}
	slices.SortFunc(paths, func(a, b string) int {
		return cmp.Or(cmp.Compare(later(a), later(b)), cmp.Compare(a, b))
	})
	for i, p := range paths {
		if err := out.entry(t[p], uint32(i+1)); err != nil {
			return fmt.Errorf("pack /%s: %w", p, err)
		}
	}
	return out.end()
}

// cpioWriter writes the format newc: magic and thirteen fields of eight
// hexadecimal digits, the name, the content, each padded to four bytes.
type cpioWriter struct {
	w   io.Writer
	off int64
}

func (c *cpioWriter) entry(e entry, inode uint32) error {
	var content io.ReadCloser
	var size int64
	if e.open != nil {
		var err error
		if content, size, err = e.open(); err != nil {
			return err
		}
		defer content.Close()
	}
	if size > MaxFileSize {
		return fmt.Errorf("%d bytes, more than %d", size, int64(MaxFileSize))
	}
	links := uint32(1)
	if e.mode&unix.S_IFMT == unix.S_IFDIR {
		links = 2
	}
	if err := c.header(e.path, inode, e.mode, links, uint32(size), e.dev); err != nil {
		return err
	}
	if content != nil {
		n, err := io.Copy(c, io.LimitReader(content, size+1))
		if err != nil {
			return err
		}
		if n != size {
			return fmt.Errorf("its size changed from %d to %d bytes while it was read", size, n)
		}
	}
	return c.pad()
}

func (c *cpioWriter) header(name string, inode, mode, links, size uint32, dev [2]uint32) error {
	// Owner, group, time, device of the archive and check sum are 0.
	_, err := fmt.Fprintf(c, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		inode, mode, 0, 0, links, 0, size, 0, 0, dev[0], dev[1], len(name)+1, 0, name)
	if err != nil {
		return err
	}
	return c.pad()
}

func (c *cpioWriter) end() error { return c.header("TRAILER!!!", 0, 0, 1, 0, [2]uint32{}) }

func (c *cpioWriter) pad() error {
	_, err := c.Write(make([]byte, -c.off&3))
	return err
}

// Write is io.Writer and counts.
func (c *cpioWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.off += int64(n)
	return n, err
}
