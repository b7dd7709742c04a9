package loader

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// MaxEntries is how many names a Tree has.
	MaxEntries = 4096
	// MaxName is how many bytes a name has: TFTP requests are one packet of
	// 512 bytes (RFC 1350), DHCP has 128 for the name (RFC 2131).
	MaxName = 255
	// MaxImage is the size limit of a file in bytes.
	MaxImage = 1 << 30
)

// ErrChanged is the cause when a file is not the one that was checked.
var ErrChanged = errors.New("the file was changed after it was checked")

// A Check decides whether a file may be offered. It reads what it needs; size
// is in bytes.
type Check func(r io.ReaderAt, size int64) error

// Entry is one checked file. The zero Entry is not valid.
type Entry struct {
	data   []byte // the content, if path is empty
	path   string // of the file on this machine
	dev    uint64
	ino    uint64
	size   int64
	mtime  time.Time
	sum    [sha256.Size]byte
	loaded bool
}

// Size is the number of bytes.
func (e Entry) Size() int64 { return e.size }

// Sum is the SHA-256 of the content.
func (e Entry) Sum() [sha256.Size]byte { return e.sum }

// Path is the file of the host, or "" when the content is in memory.
func (e Entry) Path() string { return e.path }

// Bytes makes an entry of data, which must not be changed afterwards. mtime is
// what clients are told.
func Bytes(data []byte, mtime time.Time, check Check) (Entry, error) {
	if len(data) > MaxImage {
		return Entry{}, fmt.Errorf("%d bytes are more than the %d that may be offered", len(data), MaxImage)
	}
	if err := run(check, bytes.NewReader(data), int64(len(data))); err != nil {
		return Entry{}, err
	}
	return Entry{data: data, size: int64(len(data)), mtime: mtime, sum: sha256.Sum256(data), loaded: true}, nil
}

// File makes an entry of a file of this machine: it is checked and read once as
// a whole. The error names the file.
func File(path string, check Check) (Entry, error) {
	e, err := file(path, check)
	if err != nil {
		return Entry{}, fmt.Errorf("%s cannot be offered for booting: %w", path, err)
	}
	return e, nil
}

// Known makes an entry of a file whose content was checked before, here or by
// another node of the cluster: sum is its SHA-256. It is read as a whole, but not
// looked into. The error is ErrChanged if it has another content.
func Known(path string, sum [sha256.Size]byte) (Entry, error) {
	e, err := file(path, nil)
	if err == nil && e.sum != sum {
		err = ErrChanged
	}
	if err != nil {
		return Entry{}, fmt.Errorf("%s cannot be offered for booting: %w", path, err)
	}
	return e, nil
}

// Fresh reports whether the file is still the one of which the entry was made, as
// far as its identity, size and time tell.
func (e Entry) Fresh() bool {
	if !e.loaded || e.path == "" {
		return e.loaded
	}
	f, err := open(e.path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	now, err := identify(f)
	return err == nil && now.same(e)
}

func file(path string, check Check) (Entry, error) {
	f, err := open(path)
	if err != nil {
		return Entry{}, err
	}
	defer func() { _ = f.Close() }()
	e, err := identify(f)
	if err != nil {
		return Entry{}, err
	}
	if e.size > MaxImage {
		return Entry{}, fmt.Errorf("%d bytes are more than the %d that may be offered", e.size, MaxImage)
	}
	if err := run(check, f, e.size); err != nil {
		return Entry{}, err
	}
	hash := sha256.New()
	n, err := io.Copy(hash, io.NewSectionReader(f, 0, e.size))
	if err != nil {
		return Entry{}, err
	}
	after, err := identify(f)
	if err != nil {
		return Entry{}, err
	}
	if n != e.size || !after.same(e) {
		return Entry{}, ErrChanged
	}
	e.path, e.loaded = path, true
	hash.Sum(e.sum[:0])
	return e, nil
}

func run(check Check, r io.ReaderAt, size int64) error {
	if size == 0 {
		return errors.New("it is empty")
	}
	if check == nil {
		return nil
	}
	return check(r, size)
}

// open opens a regular file; it does not wait for the other end of a pipe.
func open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return nil, pe.Err // the caller names the file
	}
	return f, err
}

// identify says which file f is.
func identify(f *os.File) (Entry, error) {
	info, err := f.Stat()
	if err != nil {
		return Entry{}, err
	}
	if !info.Mode().IsRegular() {
		return Entry{}, errors.New("it is not a regular file")
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Entry{}, fmt.Errorf("fstat: %w", err)
	}
	return Entry{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: info.ModTime()}, nil
}

func (e Entry) same(o Entry) bool {
	return e.dev == o.dev && e.ino == o.ino && e.size == o.size && e.mtime.Equal(o.mtime)
}

// Tree holds entries under their names.
type Tree struct {
	entries map[string]Entry
}

// NewTree makes a tree. Names are paths with slashes, like "pxelinux.cfg/default":
// as of fs.ValidPath, printable ASCII without spaces and backslashes.
func NewTree(entries map[string]Entry) (*Tree, error) {
	if len(entries) > MaxEntries {
		return nil, fmt.Errorf("boot tree: %d names are more than %d", len(entries), MaxEntries)
	}
	for name, e := range entries {
		if !validName(name) {
			return nil, fmt.Errorf("boot tree: %.300q is no name: use at most %d of printable ASCII without spaces, no leading slash and no ..", name, MaxName)
		}
		if !e.loaded {
			return nil, fmt.Errorf("boot tree: %s has no checked content", name)
		}
	}
	return &Tree{entries: maps.Clone(entries)}, nil
}

func validName(name string) bool {
	if len(name) > MaxName || name == "." || !fs.ValidPath(name) {
		return false
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || c == '\\' {
			return false
		}
	}
	return true
}

// Names lists the names in order.
func (t *Tree) Names() []string { return slices.Sorted(maps.Keys(t.entries)) }

// Lookup finds an entry.
func (t *Tree) Lookup(name string) (Entry, bool) {
	e, ok := t.entries[name]
	return e, ok
}

// Open opens the content of a name; the caller closes it. The file is also an
// io.ReaderAt, and an *os.File if it is one of this machine, and it is read
// independently of others that opened it. Sys of the information is the
// SHA-256 as [32]byte. Errors: fs.ErrNotExist for a name that is not in the
// tree, ErrChanged.
func (t *Tree) Open(name string) (io.ReadSeekCloser, fs.FileInfo, error) {
	e, ok := t.entries[name]
	if !ok {
		return nil, nil, fs.ErrNotExist
	}
	info := fileInfo{name: name, e: e}
	if e.path == "" {
		return memory{bytes.NewReader(e.data)}, info, nil
	}
	f, err := open(e.path)
	if err == nil {
		var now Entry
		if now, err = identify(f); err == nil && now.same(e) {
			return f, info, nil
		}
		_ = f.Close()
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		// Not fs.ErrNotExist: the name is there, only its file is not what it was.
		err = ErrChanged
	}
	return nil, nil, fmt.Errorf("%s (%s): %w", name, e.path, err)
}

// memory is content in memory that can be closed.
type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

type fileInfo struct {
	name string
	e    Entry
}

func (i fileInfo) Name() string       { return i.name }
func (i fileInfo) Size() int64        { return i.e.size }
func (i fileInfo) Mode() fs.FileMode  { return 0o444 }
func (i fileInfo) ModTime() time.Time { return i.e.mtime }
func (i fileInfo) IsDir() bool        { return false }
func (i fileInfo) Sys() any           { return i.e.sum }

// Shelf holds the tree that is offered now; the zero value offers nothing.
type Shelf struct {
	tree atomic.Pointer[Tree]
}

// Put replaces the tree; transfers that run keep what they opened.
func (s *Shelf) Put(t *Tree) { s.tree.Store(t) }

// Tree is the tree of now, or nil.
func (s *Shelf) Tree() *Tree { return s.tree.Load() }

// Open is Tree.Open of the tree of now.
func (s *Shelf) Open(name string) (io.ReadSeekCloser, fs.FileInfo, error) {
	t := s.tree.Load()
	if t == nil {
		return nil, nil, fs.ErrNotExist
	}
	return t.Open(name)
}
