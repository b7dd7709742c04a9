package raftlog

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// blockSize is the size of a block: the unit that disks write as a whole.
const blockSize = 512

// A block is: CRC-32C of the rest (4), group (8), its place in the group (4),
// blocks in the group (4), bytes of payload used (2), zero (2), chain (4),
// payload. The CRC starts from that of the segment's header, so a block is
// only valid in its own segment.
const (
	blockHead    = 28
	blockPayload = blockSize - blockHead
)

// castagnoli is the table of CRC-32C; MakeTable returns one and the same.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// blockInfo is a decoded block.
type blockInfo struct {
	crc     uint32
	group   uint64
	place   uint32
	total   uint32
	chain   uint32
	payload []byte // within the block
}

// position is where the next group goes.
type position struct {
	group uint64 // its number, from 1
	chain uint32 // over all groups before
	block uint32 // its first block in the segment
}

// groupBlocks is how many blocks a payload takes.
func groupBlocks(payload int) int { return max(1, (payload+blockPayload-1)/blockPayload) }

// appendGroup appends the blocks of a group to b and returns the chain after it.
func appendGroup(b []byte, seed uint32, at position, payload []byte) ([]byte, uint32) {
	total := groupBlocks(len(payload))
	chain := at.chain
	for i := range total {
		part := payload[:min(len(payload), blockPayload)]
		payload = payload[len(part):]
		start := len(b)
		b = append(b, 0, 0, 0, 0)
		b = binary.LittleEndian.AppendUint64(b, at.group)
		b = binary.LittleEndian.AppendUint32(b, uint32(i))
		b = binary.LittleEndian.AppendUint32(b, uint32(total))
		b = binary.LittleEndian.AppendUint16(b, uint16(len(part)))
		b = append(b, 0, 0)
		b = binary.LittleEndian.AppendUint32(b, at.chain)
		b = append(b, part...)
		for len(b) < start+blockSize {
			b = append(b, 0)
		}
		crc := b[start : start+4]
		binary.LittleEndian.PutUint32(crc, crc32.Update(seed, castagnoli(), b[start+4:]))
		chain = crc32.Update(chain, castagnoli(), crc)
	}
	return b, chain
}

// decodeBlock reads a block; false means that it is not what was written.
func decodeBlock(b []byte, seed uint32) (blockInfo, bool) {
	i := blockInfo{
		crc:   binary.LittleEndian.Uint32(b),
		group: binary.LittleEndian.Uint64(b[4:]),
		place: binary.LittleEndian.Uint32(b[12:]),
		total: binary.LittleEndian.Uint32(b[16:]),
		chain: binary.LittleEndian.Uint32(b[24:]),
	}
	used := int(binary.LittleEndian.Uint16(b[20:]))
	if i.crc != crc32.Update(seed, castagnoli(), b[4:blockSize]) || used > blockPayload || i.place >= i.total {
		return blockInfo{}, false
	}
	i.payload = b[blockHead : blockHead+used]
	return i, true
}

// isZero reports whether a block was never written.
func isZero(b []byte) bool {
	var zero [blockSize]byte
	return bytes.Equal(b, zero[:])
}
