package kmod

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"testing"
)

// gpt is a disk with a GPT, whose second partition has testUUID.
func gpt(sector, size int) []byte {
	b := make([]byte, size)
	b[446+4], b[510], b[511] = 0xee, 0x55, 0xaa
	le := binary.LittleEndian
	last := size/sector - 1
	const count = 4
	table := make([]byte, count*128)
	copy(table[128:], "type of what is")
	copy(table[144:], mixed([16]byte([]byte(uuidBytes()))))
	for _, lba := range []int{1, last} {
		first := lba + 1
		if lba == last {
			first = last - 1
		}
		copy(b[first*sector:], table)
		h := b[lba*sector:]
		copy(h, "EFI PART\x00\x00\x01\x00")
		le.PutUint32(h[12:], 92)
		le.PutUint64(h[24:], uint64(lba))
		le.PutUint64(h[72:], uint64(first))
		le.PutUint32(h[80:], count)
		le.PutUint32(h[84:], 128)
		le.PutUint32(h[88:], crc32.ChecksumIEEE(table))
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
	}
	return b
}

func TestReadParts(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		whole := gpt(sector, 1<<20)
		noFirst, noEntries, none := slices.Clone(whole), slices.Clone(whole), slices.Clone(whole)
		noFirst[sector+30]++
		noEntries[2*sector]++
		none[sector]++
		none[len(none)-sector]++
		for name, c := range map[string]struct {
			disk []byte
			want string
		}{"whole": {whole, testUUID}, "first copy damaged": {noFirst, testUUID}, "first entries damaged": {noEntries, testUUID}, "both damaged": {none, ""}, "truncated": {whole[:1024], ""}} {
			table, err := readParts(bytes.NewReader(c.disk), int64(len(c.disk)), int64(sector))
			if err != nil || table.uuid(2) != c.want || table.uuid(1) != "" || table.uuid(-1) != "" {
				t.Errorf("%s, sectors of %d: %+v, %v", name, sector, table, err)
			}
		}
	}
	mbr := image(4096, map[int]string{440: "\x01\xee\xff\xc0", 510: "\x55\xaa"})
	if table, err := readParts(bytes.NewReader(mbr), 4096, 512); err != nil || table.uuid(12) != "c0ffee01-0c" {
		t.Errorf("MBR: %+v, %v", table, err)
	}
}

func FuzzReadParts(f *testing.F) {
	f.Add(gpt(512, 8<<10), int64(8<<10), int64(512))
	f.Add(image(1024, map[int]string{440: "\x01\xee\xff\xc0", 510: "\x55\xaa"}), int64(8<<10), int64(512))
	f.Fuzz(func(_ *testing.T, b []byte, size, sector int64) {
		table, _ := readParts(bytes.NewReader(b), size, sector)
		table.uuid(1)
	})
}
