package loader

import (
	"bufio"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
)

// zstdFrame reads the bytes of one zstd frame (RFC 8878, section 3.1.1) and stops
// behind it, where padding or another archive may follow: the decoder would
// take that for a damaged frame.
type zstdFrame struct {
	in    *bufio.Reader
	begun bool
	left  int64 // bytes until the next block header
	last  bool  // that was the last block
	sum   bool  // there is a checksum behind it
}

const (
	zstdBlockHeader = 3
	zstdChecksum    = 4
	zstdRLE         = 1 // a block of this type has one byte, which is repeated
)

func (f *zstdFrame) Read(b []byte) (int, error) {
	for f.left == 0 {
		if err := f.next(); err != nil {
			return 0, err
		}
	}
	n, err := f.in.Read(b[:min(int64(len(b)), f.left)])
	f.left -= int64(n)
	if errors.Is(err, io.EOF) && f.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// next finds out how far the next part of the frame goes.
func (f *zstdFrame) next() error {
	switch {
	case !f.begun:
		f.begun = true
		start, _ := f.in.Peek(zstd.HeaderMaxSize) // fewer at the end
		var h zstd.Header
		if err := h.Decode(start); err != nil {
			return err
		}
		if h.Skippable {
			return errors.New("a zstd archive that is to be skipped")
		}
		f.sum = h.HasCheckSum
		f.left = int64(h.HeaderSize)
	case f.last:
		if !f.sum {
			return io.EOF
		}
		f.sum, f.left = false, zstdChecksum
		return nil
	default:
		return f.block()
	}
	return nil
}

// block reads the header of a block ahead; it is passed on with the block.
func (f *zstdFrame) block() error {
	b, err := f.in.Peek(zstdBlockHeader)
	if err != nil {
		return io.ErrUnexpectedEOF
	}
	header := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
	f.last = header&1 != 0
	size := int64(header >> 3)
	if header>>1&3 == zstdRLE {
		size = 1
	}
	f.left = zstdBlockHeader + size
	return nil
}
