package loader

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// MaxUnpacked is how many bytes an initramfs may have unpacked: it becomes
// memory of the machine that boots.
const MaxUnpacked = 4 << 30

// The format of the kernel's initramfs
// (Documentation/driver-api/early-userspace/buffer-format.rst).
const (
	cpioHeader  = 110  // "070701" or "070702" and 13 numbers of 8 hex digits
	cpioMaxName = 4096 // PATH_MAX
	cpioEnd     = "TRAILER!!!"
)

// InitramfsCheck unpacks an initramfs as the kernel would, archive by archive,
// to its end: gzip, zstd, xz or no compression. One that is cut off or damaged
// does not pass.
func InitramfsCheck(r io.ReaderAt, size int64) error {
	if err := checkInitramfs(io.NewSectionReader(r, 0, size)); err != nil {
		return fmt.Errorf("this is no initramfs: %w", err)
	}
	return nil
}

func checkInitramfs(r io.Reader) error {
	in := bufio.NewReaderSize(r, 1<<16)
	budget := int64(MaxUnpacked)
	for archives := 0; ; archives++ {
		magic, err := skipZeros(in)
		if errors.Is(err, io.EOF) {
			if archives == 0 {
				return errors.New("it has nothing but zeros")
			}
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case bytes.HasPrefix(magic, []byte("07070")):
			err = cpio(in, &budget)
		case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
			err = gunzip(in, &budget)
		case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
			err = unzstd(in, &budget)
		case bytes.HasPrefix(magic, []byte("\xfd7zXZ\x00")):
			err = unxz(in, &budget)
		default:
			return fmt.Errorf("archive %d begins with % x, which is none of gzip, zstd, xz and cpio", archives+1, magic)
		}
		if err != nil {
			return fmt.Errorf("archive %d: %w", archives+1, err)
		}
	}
}

// skipZeros skips the padding between archives and shows the first bytes after.
func skipZeros(in *bufio.Reader) ([]byte, error) {
	for {
		c, err := in.ReadByte()
		if err != nil {
			return nil, err
		}
		if c == 0 {
			continue
		}
		if err := in.UnreadByte(); err != nil {
			return nil, err
		}
		magic, _ := in.Peek(6) // fewer at the end
		return magic, nil
	}
}

func gunzip(in *bufio.Reader, budget *int64) error {
	z, err := gzip.NewReader(in)
	if err != nil {
		return ended(err)
	}
	z.Multistream(false) // it then stops behind its own last byte
	return cpios(z, budget)
}

func unzstd(in *bufio.Reader, budget *int64) error {
	z, err := zstd.NewReader(&zstdFrame{in: in}, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<30))
	if err != nil {
		return err
	}
	defer z.Close()
	return cpios(z, budget)
}

func unxz(in *bufio.Reader, budget *int64) error {
	end := &tail{r: in}
	z, err := xz.NewReader(end)
	if err != nil {
		return ended(err)
	}
	if err := cpios(z, budget); err != nil {
		return err
	}
	// The package takes an end before the index for the end.
	if !bytes.HasSuffix(bytes.TrimRight(end.last, "\x00"), []byte("YZ")) {
		return errCut
	}
	return nil
}

// tail keeps the last bytes that were read.
type tail struct {
	r    io.Reader
	last []byte
}

func (t *tail) Read(b []byte) (int, error) {
	n, err := t.r.Read(b)
	t.last = append(t.last, b[max(0, n-16):n]...)
	t.last = t.last[max(0, len(t.last)-16):]
	return n, err
}

// cpios reads the archives in what was unpacked, and the rest of it, because
// the checksum is at the end.
func cpios(r io.Reader, budget *int64) error {
	in := bufio.NewReaderSize(r, 1<<16)
	for n := 0; ; n++ {
		magic, err := skipZeros(in)
		if errors.Is(err, io.EOF) {
			if n == 0 {
				return errors.New("there is no cpio archive in it")
			}
			return nil
		}
		if err != nil {
			return ended(err)
		}
		if !bytes.HasPrefix(magic, []byte("07070")) {
			return fmt.Errorf("% x is not the begin of a cpio archive", magic)
		}
		if err := cpio(in, budget); err != nil {
			return err
		}
	}
}

// cpio reads one archive up to its trailer. budget is what all may have
// together.
func cpio(in *bufio.Reader, budget *int64) error {
	var h [cpioHeader]byte
	name := make([]byte, 0, 256)
	for {
		if _, err := io.ReadFull(in, h[:]); err != nil {
			return ended(err)
		}
		if m := string(h[:6]); m != "070701" && m != "070702" {
			return fmt.Errorf("%q is not the begin of a file in a cpio archive (newc)", h[:6])
		}
		size, err1 := strconv.ParseUint(string(h[54:62]), 16, 32)
		length, err2 := strconv.ParseUint(string(h[94:102]), 16, 32)
		if err1 != nil || err2 != nil || length == 0 || length > cpioMaxName {
			return errors.New("the header of a file in the cpio archive is damaged")
		}
		name = append(name[:0], make([]byte, length)...)
		if _, err := io.ReadFull(in, name); err != nil {
			return ended(err)
		}
		skip := pad4(cpioHeader+int64(length)) + int64(size) + pad4(int64(size))
		if *budget -= cpioHeader + int64(length) + skip; *budget < 0 {
			return fmt.Errorf("it has more than %d bytes unpacked", int64(MaxUnpacked))
		}
		last := string(bytes.TrimRight(name, "\x00")) == cpioEnd
		if last {
			skip = int64(size) // the padding is zeros, if there is any
		}
		if n, err := io.CopyN(io.Discard, in, skip); err != nil {
			return fmt.Errorf("%.80q, byte %d of %d: %w", bytes.TrimRight(name, "\x00"), n, skip, ended(err))
		}
		if last {
			return nil
		}
	}
}

// pad4 is how many bytes are missing to a multiple of 4.
func pad4(n int64) int64 { return -n & 3 }

// ended makes the end of the bytes the cause that it is here.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errCut
	}
	return err
}
