package initramfs

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// Compression of an archive.
type Compression string

// The compressions. A kernel needs CONFIG_RD_ZSTD or CONFIG_RD_GZIP for it;
// Debian's have both.
const (
	Zstd Compression = "zstd"
	Gzip Compression = "gzip"
	None Compression = "none"
)

// Program is a program to pack with its shared libraries.
type Program struct {
	Source string // file on this machine, below Config.Root
	Path   string // in the archive; "" is Source
}

// File is a file to pack: Data, or the content of Source.
type File struct {
	Path   string // in the archive, absolute
	Mode   uint32 // permissions; 0 is 0644
	Data   []byte
	Source string // file on this machine; "" takes Data
}

// Link is a symbolic link.
type Link struct{ Path, Target string }

// Config says what is in an initramfs. Beside it there are /dev/console and
// /dev/null, which PID 1 needs before it has mounted anything, and the
// directories that it mounts on.
type Config struct {
	Binary   string   // the ssi program, packed as /sbin/ssi, to which /init links
	Tree     string   // of modules: /lib/modules/VERSION; "" packs none
	Kernel   string   // image of the kernel, if it is to be compared with Tree; "" is none
	Classes  []string // of hardware, see Classes
	Modules  []string // more modules: names or patterns (see kmod.Index.Select)
	Firmware string   // directory like /lib/firmware, of which the modules' files are packed; "" packs none
	Programs []Program
	Files    []File
	Dirs     []string    // directories, mode 0755 unless it is one that every machine gets
	Links    []Link      // applets, for instance
	Root     string      // where Programs and their libraries are; "" is /
	Compress Compression // "" is Zstd
}

// Result is what was built.
type Result struct {
	Size         int64  // bytes, compressed
	Uncompressed int64  // bytes: memory that the kernel needs for it
	SHA256       string // hexadecimal
	Version      string // of the kernel; "" without modules
	Modules      []string
	Absent       []string // names in classes and Config.Modules that this kernel does not have
	Firmware     []string // what modules name and was packed
}

// Build makes an initramfs and puts it at output, with mode 0600 as it may hold
// secrets. Whatever fails, a file that was there before stays as it was.
func Build(ctx context.Context, c Config, output string) (r Result, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("build initramfs %s: %w", output, err)
		}
	}()
	if info, err := os.Lstat(output); err == nil && !info.Mode().IsRegular() {
		return Result{}, fmt.Errorf("it is there and no regular file")
	}
	temp, err := os.CreateTemp(filepath.Dir(output), "."+filepath.Base(output)+".*")
	if err != nil {
		return Result{}, err
	}
	defer os.Remove(temp.Name()) // fails when it was renamed
	defer temp.Close()
	if r, err = Write(ctx, c, temp); err != nil {
		if errors.Is(err, unix.ENOSPC) {
			err = fmt.Errorf("%w: make room in %s and try again", err, filepath.Dir(output))
		}
		return Result{}, err
	}
	if err := temp.Sync(); err != nil {
		return Result{}, err
	}
	if err := os.Rename(temp.Name(), output); err != nil {
		return Result{}, err
	}
	return r, nil
}

// Write makes an initramfs and writes it to w.
func Write(ctx context.Context, c Config, w io.Writer) (Result, error) {
	t, r, err := c.plan(ctx)
	if err != nil {
		return Result{}, err
	}
	sum := &counter{w: w, sum: sha256.New(), ctx: ctx}
	compressed, err := compressor(sum, c.Compress)
	if err != nil {
		return Result{}, err
	}
	plain := &counter{w: compressed, ctx: ctx}
	if err := t.archive(plain); err != nil {
		_ = compressed.Close()
		return Result{}, err
	}
	if err := compressed.Close(); err != nil {
		return Result{}, err
	}
	// What follows, if something does, begins at four bytes: buffer-format.rst.
	if _, err := sum.Write(make([]byte, -sum.n&3)); err != nil {
		return Result{}, err
	}
	r.Size, r.Uncompressed, r.SHA256 = sum.n, plain.n, hex.EncodeToString(sum.sum.Sum(nil))
	return r, nil
}

// Overlay is a small archive, not compressed, of files that a boot loader loads
// behind another one: the kernel unpacks both, later files in place of earlier.
func Overlay(files []File) ([]byte, error) {
	t := tree{}
	if err := t.files(files); err != nil {
		return nil, fmt.Errorf("pack files: %w", err)
	}
	var b bytes.Buffer
	if err := t.archive(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// compressor gives the same bytes for the same input: one thread, no time stamp.
func compressor(w io.Writer, c Compression) (io.WriteCloser, error) {
	switch c {
	case Zstd, "":
		// The best, as it is made once and sent to every machine.
		// The kernel takes windows up to 128 MiB (lib/decompress_unzstd.c), but
		// has to find memory for them.
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8<<20))
	case Gzip:
		return gzip.NewWriterLevel(w, gzip.BestCompression)
	case None:
		return plainWriter{w}, nil
	}
	return nil, fmt.Errorf("compression %q is not known: use zstd, gzip or none", c)
}

type plainWriter struct{ io.Writer }

func (plainWriter) Close() error { return nil }

// counter counts and sums what goes through, and ends with a context.
type counter struct {
	w   io.Writer
	n   int64
	sum hash.Hash // may be nil
	ctx context.Context
}

func (c *counter) Write(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.w.Write(b)
	c.n += int64(n)
	if c.sum != nil {
		c.sum.Write(b[:n])
	}
	return n, err
}
