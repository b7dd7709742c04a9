package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
)

const (
	// segmentSize is the size of a segment in bytes, unless one group needs
	// more. Small, because it is taken from the disk (or from memory, on
	// tmpfs) at once.
	segmentSize = 4 << 20

	segmentMagic   = "ssiraft1"
	segmentVersion = 1
)

// segmentHeader is block 0 of a segment.
type segmentHeader struct {
	id     Identity
	seq    uint64 // of the segments, from 1
	blocks uint32 // in the segment, header included
	first  uint64 // index of the entry that would come next when it was begun
	at     position
}

// encode returns the block and its CRC, the seed of all other blocks.
func (h segmentHeader) encode() ([]byte, uint32) {
	b := make([]byte, 0, blockSize)
	b = append(b, segmentMagic...)
	b = binary.LittleEndian.AppendUint32(b, segmentVersion)
	b = binary.LittleEndian.AppendUint32(b, h.blocks)
	b = binary.LittleEndian.AppendUint64(b, h.seq)
	b = binary.LittleEndian.AppendUint64(b, h.first)
	b = binary.LittleEndian.AppendUint64(b, h.at.group)
	b = binary.LittleEndian.AppendUint32(b, h.at.chain)
	b = h.id.append(b)
	b = append(b, make([]byte, blockSize-4-len(b))...)
	crc := crc32.Checksum(b, castagnoli())
	return binary.LittleEndian.AppendUint32(b, crc), crc
}

func decodeHeader(b []byte) (h segmentHeader, crc uint32, why string) {
	crc = binary.LittleEndian.Uint32(b[blockSize-4:])
	if string(b[:8]) != segmentMagic || crc != crc32.Checksum(b[:blockSize-4], castagnoli()) {
		return h, 0, "the header does not match its checksum"
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != segmentVersion {
		return h, 0, fmt.Sprintf("it has format %d, this version of ssi reads %d", v, segmentVersion)
	}
	h.blocks = binary.LittleEndian.Uint32(b[12:])
	h.seq = binary.LittleEndian.Uint64(b[16:])
	h.first = binary.LittleEndian.Uint64(b[24:])
	h.at = position{group: binary.LittleEndian.Uint64(b[32:]), chain: binary.LittleEndian.Uint32(b[40:]), block: 1}
	h.id = identityOf(b[44 : 44+identitySize])
	return h, crc, ""
}

// segment is a segment of an open log. Only the last has an open file.
type segment struct {
	path   string
	seq    uint64
	last   uint64 // highest index of an entry in it or before it; 0: none
	file   *os.File
	seed   uint32
	blocks uint32
	at     position // where the next group goes
}

func segmentPath(sub string, seq uint64) string {
	return filepath.Join(sub, fmt.Sprintf("log-%016x", seq))
}

// createSegment makes a durable segment with one group. After an error there
// is none.
func (d disk) createSegment(sub string, h segmentHeader, payload []byte) (*segment, error) {
	groups := int64(groupBlocks(len(payload)))
	// Block 0, the group, and the end.
	h.blocks = uint32(max(int64(h.blocks), d.segment/blockSize, 1+groups+endBlocks))
	h.at.block = 1
	path := segmentPath(sub, h.seq)
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	head, seed := h.encode()
	b, chain := appendGroup(head, seed, h.at, payload)
	err = d.allocate(f, int64(h.blocks)*blockSize)
	if err == nil {
		err = d.pwrite(f, b, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = publish(tmp, path)
	}
	if err != nil {
		_ = f.Close()
		_ = os.Remove(tmp)
		return nil, err
	}
	return &segment{
		path: path, seq: h.seq, file: f, seed: seed, blocks: h.blocks,
		at: position{group: h.at.group + 1, chain: chain, block: 1 + uint32(groups)},
	}, nil
}

// endBlocks is kept free at the end of a segment: a block for its end, and one
// to name a snapshot, so that one can be taken when there is no space for
// another segment.
const endBlocks = 2

// room reports whether a group of so many blocks fits, and so many behind it.
func (s *segment) room(blocks, behind int) bool {
	return uint64(s.at.block)+uint64(blocks)+uint64(behind) <= uint64(s.blocks)
}

// scan is the reading of a segment.
type scan struct {
	segment
	header segmentHeader
	ended  bool
	torn   bool // an unfinished group lies behind `at`
	reader blockReader
}

// scanSegment reads a segment and calls fn with its records in order. It
// returns a *DamagedError for everything that no crash can have done; whether
// an unfinished group or a missing end is permitted is the caller's to know.
func scanSegment(path string, f *os.File, fn func(record) error) (*scan, error) {
	s := &scan{reader: blockReader{file: f}}
	s.path, s.file = path, f
	info, err := f.Stat()
	if err != nil {
		return nil, damaged(path, -1, err, "cannot be read")
	}
	if info.Size() < blockSize {
		return nil, damaged(path, info.Size(), nil, "it is cut off")
	}
	b, err := s.reader.read(0)
	if err != nil {
		return nil, damaged(path, 0, err, "cannot be read")
	}
	h, seed, why := decodeHeader(b)
	if why != "" {
		return nil, damaged(path, 0, nil, "%s", why)
	}
	if info.Size() != int64(h.blocks)*blockSize {
		return nil, damaged(path, info.Size(), nil, "it has %d bytes instead of %d", info.Size(), int64(h.blocks)*blockSize)
	}
	s.header, s.seed, s.seq, s.at, s.blocks = h, seed, h.seq, h.at, h.blocks
	for !s.ended && !s.torn && s.at.block < h.blocks {
		more, err := s.group(fn)
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
	}
	return s, s.rest()
}

func (s *scan) damaged(block uint32, format string, args ...any) error {
	return damaged(s.path, int64(block)*blockSize, nil, format, args...)
}

// block reads a block of the group at s.at; nil means that it is zero.
func (s *scan) block(n uint32) (*blockInfo, error) {
	b, err := s.reader.read(n)
	if err != nil {
		return nil, damaged(s.path, int64(n)*blockSize, err, "cannot be read")
	}
	if isZero(b) {
		return nil, nil
	}
	i, ok := decodeBlock(b, s.seed)
	switch {
	case !ok:
		return nil, s.damaged(n, "a block does not match its checksum")
	case i.group != s.at.group || i.chain != s.at.chain || i.place != n-s.at.block:
		return nil, s.damaged(n, "block %d of group %d is where block %d of group %d belongs", i.place, i.group, n-s.at.block, s.at.group)
	case uint64(s.at.block)+uint64(i.total) > uint64(s.blocks):
		return nil, s.damaged(n, "group %d does not fit in its segment", i.group)
	}
	return &i, nil
}

// group reads the group at s.at. It returns false if there is none, whole.
func (s *scan) group(fn func(record) error) (bool, error) {
	first, err := s.block(s.at.block)
	if first == nil || err != nil {
		return false, err
	}
	total, chain := first.total, s.at.chain
	var payload []byte
	var crc [4]byte
	for n := range total {
		i, err := s.block(s.at.block + n)
		if err != nil {
			return false, err
		}
		if i == nil {
			s.torn = true
			return false, nil
		}
		if i.total != total {
			return false, s.damaged(s.at.block+n, "group %d has two lengths", i.group)
		}
		binary.LittleEndian.PutUint32(crc[:], i.crc)
		chain = crc32.Update(chain, castagnoli(), crc[:])
		payload = append(payload, i.payload...)
	}
	err = decodeRecords(payload, func(r record) error {
		if s.ended {
			return fmt.Errorf("a record follows the end")
		}
		s.ended = r.end
		return fn(r)
	})
	if err != nil {
		return false, damaged(s.path, int64(s.at.block)*blockSize, err, "group %d", s.at.group)
	}
	s.at = position{group: s.at.group + 1, chain: chain, block: s.at.block + total}
	return true, nil
}

// rest checks what lies behind the last whole group: zeros, or blocks of one
// more group, if the log goes on here.
func (s *scan) rest() error {
	var total uint32
	for n := s.at.block; n < s.blocks; n++ {
		i, err := s.block(n)
		if err != nil {
			return err
		}
		if i == nil {
			continue
		}
		if s.ended {
			return s.damaged(n, "a block follows the end")
		}
		if total != 0 && total != i.total {
			return s.damaged(n, "group %d has two lengths", i.group)
		}
		s.torn, total = true, i.total
	}
	return nil
}

// clean turns the unfinished group into zeros, so that none of its blocks can
// be taken for one of a later group.
func (s *scan) clean(d disk) error {
	zero := make([]byte, blockSize)
	for n := s.at.block; n < s.blocks; n++ {
		b, err := s.reader.read(n)
		if err != nil {
			return err
		}
		if isZero(b) {
			continue
		}
		if err := d.pwrite(s.file, zero, int64(n)*blockSize); err != nil {
			return err
		}
	}
	return d.fdatasync(s.file)
}

// blockReader reads the blocks of a file, mostly one after the other.
type blockReader struct {
	file  *os.File
	buf   []byte
	start int64 // of buf in the file
}

func (r *blockReader) read(n uint32) ([]byte, error) {
	off := int64(n) * blockSize
	if off < r.start || off+blockSize > r.start+int64(len(r.buf)) {
		if r.buf == nil {
			r.buf = make([]byte, 128<<10)
		}
		r.buf = r.buf[:cap(r.buf)]
		k, err := r.file.ReadAt(r.buf, off)
		if err != nil && !errors.Is(err, io.EOF) {
			r.buf = r.buf[:0]
			return nil, err
		}
		r.buf, r.start = r.buf[:k], off
		if k < blockSize {
			return nil, io.ErrUnexpectedEOF
		}
	}
	return r.buf[off-r.start:][:blockSize], nil
}
