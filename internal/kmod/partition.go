package kmod

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// partTable gives the UUIDs of the partitions of one disk by their numbers.
type partTable struct {
	signature uint32         // of an MBR; 0 if there is none
	uuids     map[int]string // of a GPT
}

// uuid is PARTUUID as the kernel makes it (block/partitions/msdos.c and efi.c),
// or "".
func (t partTable) uuid(number int) string {
	switch {
	case t.uuids != nil:
		return t.uuids[number]
	case t.signature != 0 && number > 0:
		return fmt.Sprintf("%08x-%02x", t.signature, number)
	}
	return ""
}

// readParts reads the table of a disk of size bytes with sectors of that many
// bytes: GPT (UEFI specification, chapter 5) or MBR.
func readParts(r io.ReaderAt, size, sector int64) (partTable, error) {
	mbr := make([]byte, 512)
	if n, err := r.ReadAt(mbr, 0); n < len(mbr) {
		if err == io.EOF {
			return partTable{}, nil
		}
		return partTable{}, fmt.Errorf("read partition table: %w", err)
	}
	if mbr[510] != 0x55 || mbr[511] != 0xaa {
		return partTable{}, nil
	}
	protective := false
	for i := range 4 {
		protective = protective || mbr[446+16*i+4] == 0xee
	}
	if !protective {
		return partTable{signature: binary.LittleEndian.Uint32(mbr[440:])}, nil
	}
	if sector < 512 || sector > 64<<10 || size < 3*sector {
		return partTable{}, nil
	}
	// The second copy is at the end.
	for _, lba := range []int64{1, size/sector - 1} {
		uuids, err := readGPT(r, lba, sector, size)
		if uuids != nil || err != nil {
			return partTable{uuids: uuids}, err
		}
	}
	return partTable{}, nil
}

// readGPT reads one copy; it is nil if that is damaged.
func readGPT(r io.ReaderAt, lba, sector, size int64) (map[int]string, error) {
	const (
		minHeader  = 92
		entrySize  = 128  // the kernel takes no other
		maxEntries = 4096 // tools write 128
	)
	h := make([]byte, sector)
	if n, err := r.ReadAt(h, lba*sector); n < len(h) {
		if err == io.EOF {
			return nil, nil
		}
		return nil, fmt.Errorf("read partition table: %w", err)
	}
	le := binary.LittleEndian
	length, sum, first, count := int64(le.Uint32(h[12:])), le.Uint32(h[16:]), int64(le.Uint64(h[72:])), int64(le.Uint32(h[80:]))
	if string(h[:8]) != "EFI PART" || length < minHeader || length > sector || int64(le.Uint64(h[24:])) != lba ||
		le.Uint32(h[84:]) != entrySize || count < 1 || count > maxEntries || first < 1 || first > size/sector {
		return nil, nil
	}
	clear(h[16:20])
	if crc32.ChecksumIEEE(h[:length]) != sum {
		return nil, nil
	}
	table := make([]byte, count*entrySize)
	if n, err := r.ReadAt(table, first*sector); n < len(table) {
		if err == io.EOF {
			return nil, nil
		}
		return nil, fmt.Errorf("read partition table: %w", err)
	}
	if crc32.ChecksumIEEE(table) != le.Uint32(h[88:]) {
		return nil, nil
	}
	uuids := map[int]string{}
	for i := range int(count) {
		e := table[i*entrySize:]
		if [16]byte(e[:16]) != [16]byte{} { // the type of what is used
			uuids[i+1] = formatUUID(mixed([16]byte(e[16:32])))
		}
	}
	return uuids, nil
}

// mixed puts the bytes of a GUID in order: the first three fields are little
// endian on disk.
func mixed(g [16]byte) []byte {
	g[0], g[1], g[2], g[3] = g[3], g[2], g[1], g[0]
	g[4], g[5], g[6], g[7] = g[5], g[4], g[7], g[6]
	return g[:]
}
