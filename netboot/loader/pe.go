package loader

import (
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// What the PE format (Microsoft, "PE Format") says of headers.
const (
	peOffset       = 0x3c // in the DOS header: where "PE\0\0" is
	peFileHeader   = 20   // bytes, after the 4 of the magic
	peSection      = 40   // bytes of a section header
	peCertificates = 4    // data directory of the signature; its address is one of the file
	subsystemEFI   = 10   // IMAGE_SUBSYSTEM_EFI_APPLICATION
	maxPESections  = 96   // what loaders accept
)

// efi is an EFI program that was taken apart.
type efi struct {
	*pe.File
	opt *pe.OptionalHeader64
}

// readEFI takes apart the headers of an EFI program and checks that its sections
// are in the file, aligned, and apart from each other in file and memory.
func readEFI(r io.ReaderAt, size int64, f Firmware) (efi, error) {
	if err := countSections(r, size); err != nil {
		return efi{}, fmt.Errorf("no EFI program: %w", err)
	}
	// debug/pe reads without knowing the size: the section reader ends it.
	file, err := pe.NewFile(io.NewSectionReader(r, 0, size))
	if err != nil {
		return efi{}, fmt.Errorf("no EFI program: %w", err)
	}
	opt, ok := file.OptionalHeader.(*pe.OptionalHeader64)
	if !ok {
		return efi{}, errors.New("no EFI program: it is not PE32+")
	}
	machine := uint16(pe.IMAGE_FILE_MACHINE_AMD64)
	if f == UEFIarm64 {
		machine = pe.IMAGE_FILE_MACHINE_ARM64
	}
	switch {
	case file.Machine != machine:
		return efi{}, fmt.Errorf("no EFI program for %s: it is made for machine %#x, not %#x", f, file.Machine, machine)
	case opt.Subsystem != subsystemEFI:
		return efi{}, fmt.Errorf("no EFI program: its subsystem is %d", opt.Subsystem)
	case !alignment(opt.FileAlignment) || !alignment(opt.SectionAlignment):
		return efi{}, fmt.Errorf("no EFI program: it is aligned to %d in the file and %d in memory", opt.FileAlignment, opt.SectionAlignment)
	}
	e := efi{file, opt}
	if err := e.checkSections(size); err != nil {
		return efi{}, err
	}
	if d := opt.DataDirectory[peCertificates]; int64(d.VirtualAddress)+int64(d.Size) > size {
		return efi{}, fmt.Errorf("%w: its signature ends at %d, the file at %d", errCut, int64(d.VirtualAddress)+int64(d.Size), size)
	}
	return e, nil
}

// countSections looks at the number of sections before debug/pe does, which reads
// relocations for each of up to 65535.
func countSections(r io.ReaderAt, size int64) error {
	h, err := head(r, size, peOffset+4)
	if err != nil {
		return err
	}
	at := int64(binary.LittleEndian.Uint32(h[peOffset:]))
	var b [4 + peFileHeader]byte
	if string(h[:2]) != "MZ" || at+int64(len(b)) > size {
		return errors.New("it does not have the headers of one")
	}
	if _, err := r.ReadAt(b[:], at); err != nil {
		return err
	}
	if n := binary.LittleEndian.Uint16(b[4+2:]); n == 0 || n > maxPESections {
		return fmt.Errorf("it has %d sections, not 1 to %d", n, maxPESections)
	}
	return nil
}

func (e efi) checkSections(size int64) error {
	type extent struct {
		name     string
		from, to int64
	}
	headers := extent{"headers", 0, int64(e.opt.SizeOfHeaders)}
	inFile, inMemory := []extent{headers}, []extent{headers}
	for _, s := range e.Sections {
		if s.Size > 0 {
			x := extent{s.Name, int64(s.Offset), int64(s.Offset) + int64(s.Size)}
			if x.to > size {
				return fmt.Errorf("%w: section %q ends at %d, the file at %d", errCut, s.Name, x.to, size)
			}
			inFile = append(inFile, x)
		}
		inMemory = append(inMemory, extent{s.Name, int64(s.VirtualAddress), int64(s.VirtualAddress) + int64(s.VirtualSize)})
	}
	for _, all := range [][]extent{inFile, inMemory} {
		slices.SortStableFunc(all, func(a, b extent) int { return int(min(max(a.from-b.from, -1), 1)) })
		for i, x := range all[1:] {
			if x.from < all[i].to {
				return fmt.Errorf("its section %q overlaps %q", x.name, all[i].name)
			}
		}
	}
	return nil
}

// alignment reports whether n is a power of two that is in use.
func alignment(n uint32) bool { return n > 0 && n&(n-1) == 0 && n <= 1<<16 }

func checkEFI(r io.ReaderAt, size int64, f Firmware) error {
	_, err := readEFI(r, size, f)
	return err
}

// newHeaderAt is where in the file the next section header belongs.
func (e efi) newHeaderAt(stub []byte) int64 {
	start := int64(binary.LittleEndian.Uint32(stub[peOffset:]))
	return start + 4 + peFileHeader + int64(e.SizeOfOptionalHeader) + peSection*int64(len(e.Sections))
}
