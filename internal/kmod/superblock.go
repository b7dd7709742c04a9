package kmod

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// FS is what a disk or partition holds.
type FS struct {
	Type  string // as mount(8) takes it: ext2 ext3 ext4 xfs btrfs vfat; or swap, crypto_LUKS, linux_raid_member
	UUID  string // as blkid(8) prints it; "" if it has none
	Label string // "" if it has none
}

// probeHead is how many bytes from the start are looked at: up to the super
// block of btrfs, 64 KiB from the start, and its label.
const probeHead = 68 << 10

// ProbeFS recognizes what r, of size bytes, holds; a zero FS is nothing known.
// A member of a RAID is told from the file system that its first bytes may look
// like: mounting that would destroy the array.
func ProbeFS(r io.ReaderAt, size int64) (FS, error) {
	head := make([]byte, min(probeHead, max(size, 0)))
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return FS{}, fmt.Errorf("look for a file system: %w", err)
	}
	b := block(head[:n])
	if raidStart(b) {
		return FS{Type: "linux_raid_member"}, nil
	}
	if raid, err := raidEnd(r, size); raid || err != nil {
		return FS{Type: "linux_raid_member"}, err
	}
	for _, probe := range []func(block) (FS, bool){luks, ext, xfs, btrfs, swap, vfat} {
		if fs, ok := probe(b); ok {
			return fs, nil
		}
	}
	return FS{}, nil
}

// block is the start of a disk. What is behind its end reads as zero.
type block []byte

func (b block) at(off, n int) []byte {
	out := make([]byte, n)
	if off >= 0 && off < len(b) {
		copy(out, b[off:])
	}
	return out
}

func (b block) is(off int, magic string) bool { return string(b.at(off, len(magic))) == magic }

func (b block) le32(off int) uint32 { return binary.LittleEndian.Uint32(b.at(off, 4)) }

// text is a string of at most n bytes that NUL ends.
func (b block) text(off, n int) string {
	s, _, _ := bytes.Cut(b.at(off, n), []byte{0})
	if !utf8.Valid(s) {
		return "" // no name for a link, and nobody can type it
	}
	return strings.TrimRight(string(s), " ")
}

func (b block) uuid(off int) string {
	u := b.at(off, 16)
	if bytes.Equal(u, make([]byte, 16)) {
		return ""
	}
	return formatUUID(u)
}

func formatUUID(u []byte) string {
	h := hex.EncodeToString(u)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// ext is Documentation/filesystems/ext4/super.rst.
func ext(b block) (FS, bool) {
	const (
		super      = 1024
		hasJournal = 0x4  // compatible
		journalDev = 0x8  // incompatible: an external journal
		ext3In     = 0x16 // incompatible features that ext3 knows: filetype, recover, meta_bg
		ext3Ro     = 0x7  // compatible for reading: sparse_super, large_file, btree_dir
	)
	if !b.is(super+0x38, "\x53\xef") {
		return FS{}, false
	}
	compat, incompat, ro := b.le32(super+0x5c), b.le32(super+0x60), b.le32(super+0x64)
	fs := FS{Type: "ext2", UUID: b.uuid(super + 0x68), Label: b.text(super+0x78, 16)}
	switch {
	case incompat&journalDev != 0:
		fs.Type = "jbd"
	case incompat&^ext3In != 0 || ro&^ext3Ro != 0:
		fs.Type = "ext4"
	case compat&hasJournal != 0:
		fs.Type = "ext3"
	}
	return fs, true
}

// xfs is fs/xfs/libxfs/xfs_format.h, struct xfs_dsb.
func xfs(b block) (FS, bool) {
	return FS{Type: "xfs", UUID: b.uuid(32), Label: b.text(108, 12)}, b.is(0, "XFSB")
}

// btrfs is include/uapi/linux/btrfs_tree.h, struct btrfs_super_block.
func btrfs(b block) (FS, bool) {
	const super = 64 << 10
	return FS{Type: "btrfs", UUID: b.uuid(super + 0x20), Label: b.text(super+0x12b, 256)}, b.is(super+0x40, "_BHRfS_M")
}

// swap is include/linux/swap.h, union swap_header; its magic ends a page, of
// which there are several sizes.
func swap(b block) (FS, bool) {
	for _, page := range []int{4 << 10, 16 << 10, 64 << 10} {
		if b.is(page-10, "SWAPSPACE2") {
			return FS{Type: "swap", UUID: b.uuid(0x40c), Label: b.text(0x41c, 16)}, true
		}
	}
	return FS{}, false
}

// vfat is include/uapi/linux/msdos_fs.h, struct fat_boot_sector. A partition
// table ends with the same two bytes, so that more must be right.
func vfat(b block) (FS, bool) {
	sector := int(binary.LittleEndian.Uint16(b.at(11, 2)))
	cluster, fats := b.at(13, 1)[0], b.at(16, 1)[0]
	if !b.is(510, "\x55\xaa") || !slices.Contains([]int{512, 1024, 2048, 4096}, sector) ||
		cluster == 0 || cluster&(cluster-1) != 0 || fats == 0 || fats > 4 {
		return FS{}, false
	}
	serial := 0
	switch {
	case b.is(0x52, "FAT32   "):
		serial = 0x43
	case b.is(0x36, "FAT12   "), b.is(0x36, "FAT16   "), b.is(0x36, "FAT     "):
		serial = 0x27
	default:
		return FS{}, false
	}
	fs := FS{Type: "vfat"}
	if id := b.le32(serial); id != 0 {
		fs.UUID = fmt.Sprintf("%04X-%04X", id>>16, id&0xffff)
	}
	if label := b.text(serial+4, 11); label != "NO NAME" {
		fs.Label = label
	}
	return fs, true
}

// luks is the LUKS on-disk format, versions 1 and 2.
func luks(b block) (FS, bool) {
	return FS{Type: "crypto_LUKS", UUID: b.text(168, 40)}, b.is(0, "LUKS\xba\xbe")
}

// raidMagic is MD_SB_MAGIC of include/uapi/linux/raid/md_p.h.
const raidMagic = 0xa92b4efc

// raidStart finds metadata 1.1 and 1.2.
func raidStart(b block) bool { return b.le32(0) == raidMagic || b.le32(4096) == raidMagic }

// raidEnd finds metadata 1.0, 8 to 12 KiB from the end, and 0.90, in the last
// whole 64 KiB but one.
func raidEnd(r io.ReaderAt, size int64) (bool, error) {
	for _, off := range []int64{(size&^511 - 8<<10) &^ 4095, size&^(64<<10-1) - 64<<10} {
		if off < 4096 {
			continue
		}
		var magic [4]byte
		if _, err := r.ReadAt(magic[:], off); err != nil && err != io.EOF {
			return false, fmt.Errorf("look for a RAID: %w", err)
		}
		if binary.LittleEndian.Uint32(magic[:]) == raidMagic || off%(64<<10) == 0 && binary.BigEndian.Uint32(magic[:]) == raidMagic {
			return true, nil
		}
	}
	return false, nil
}
