package kmod

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// MaxModule is how many bytes an uncompressed module may have; the biggest of
// Debian 13 has 30 MB.
const MaxModule = 128 << 20

// suffixes are what names of modules end with, and how the kernel calls that
// compression in /sys/module/compression.
var suffixes = [...]struct{ end, compression string }{
	{".ko", ""}, {".ko.xz", "xz"}, {".ko.zst", "zstd"}, {".ko.gz", "gzip"},
}

// splitSuffix splits the name of a module's file: "kernel/fs/fuse.ko.xz" is
// "kernel/fs/fuse.ko" and "xz".
func splitSuffix(file string) (plain, compression string, ok bool) {
	for _, s := range suffixes {
		if base, found := strings.CutSuffix(file, s.end); found && base != "" {
			return base + ".ko", s.compression, true
		}
	}
	return "", "", false
}

// fileName is the name of a module by that of its file.
func fileName(file string) string {
	plain, _, _ := splitSuffix(filepath.Base(file))
	return Name(strings.TrimSuffix(plain, ".ko"))
}

// ReadFile reads a module, uncompressed.
func ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	_, compression, ok := splitSuffix(path)
	if !ok {
		return nil, fmt.Errorf("%s: not a module: its name does not end with .ko, .ko.xz, .ko.zst or .ko.gz", path)
	}
	b, err := decompress(f, compression, MaxModule)
	if err != nil {
		return nil, fmt.Errorf("%s: read module: %w", path, err)
	}
	return b, nil
}

func decompress(r io.Reader, compression string, limit int64) ([]byte, error) {
	switch compression {
	case "xz":
		// The reader of xz reads single bytes.
		x, err := xz.NewReader(bufio.NewReaderSize(r, 64<<10))
		if err != nil {
			return nil, damaged(err)
		}
		r = x
	case "zstd":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxModule), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, damaged(err)
		}
		defer z.Close()
		r = z
	case "gzip":
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, damaged(err)
		}
		defer z.Close()
		r = z
	}
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	switch {
	case err != nil && compression != "":
		return nil, damaged(err)
	case err != nil:
		return nil, err
	case int64(len(b)) > limit:
		return nil, fmt.Errorf("it has more than %d MiB", limit>>20)
	}
	return b, nil
}

func damaged(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("its compressed data is truncated or damaged: %w", err)
}
