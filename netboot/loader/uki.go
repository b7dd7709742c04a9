package loader

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
)

const (
	// MaxSections is how many sections are added to a stub.
	MaxSections = 16
	// ukiAlignment is where sections begin in memory: at pages, so that the
	// firmware can protect them (systemd's ukify does the same).
	ukiAlignment = 4096
)

// Section is a part of a unified kernel image (systemd-stub(7)).
type Section struct {
	Name string // with the dot, at most 8 bytes
	Data io.ReaderAt
	Size int64 // bytes
}

// UKI is what a unified kernel image is made of.
type UKI struct {
	Stub      []byte // of systemd
	Firmware  Firmware
	Kernel    Section // Data and Size count
	Initramfs Section // likewise
	Cmdline   Cmdline
	OSRelease string // text as in os-release(5)
	Release   string // of the kernel, as uname -r shows it; may be empty
}

// Write writes the unified kernel image and returns its size. It does not check
// kernel and initramfs. The same input gives the same bytes.
func (u UKI) Write(w io.Writer) (int64, error) {
	cmdline, err := u.Cmdline.Render()
	if err != nil {
		return 0, fmt.Errorf("unified kernel image: %w", err)
	}
	sections := []Section{text(".osrel", u.OSRelease), text(".cmdline", cmdline)}
	if u.Release != "" {
		sections = append(sections, text(".uname", u.Release))
	}
	u.Initramfs.Name, u.Kernel.Name = ".initrd", ".linux"
	// The kernel is last: an old stub unpacks it in place, over what follows.
	sections = append(sections, u.Initramfs, u.Kernel)
	n, err := Append(w, u.Stub, u.Firmware, sections)
	if err != nil {
		return n, fmt.Errorf("unified kernel image: %w", err)
	}
	return n, nil
}

func text(name, s string) Section {
	return Section{Name: name, Data: bytes.NewReader([]byte(s)), Size: int64(len(s))}
}

// Append writes stub, an EFI program, with sections added, and returns how many
// bytes it wrote. A signature of the stub is dropped: it would be wrong. Errors:
// the stub is no EFI program for the firmware, it has a section of that name
// already or no room for the headers, a section is empty, or together they
// are more than MaxImage.
func Append(w io.Writer, stub []byte, f Firmware, sections []Section) (int64, error) {
	program, err := readEFI(bytes.NewReader(stub), int64(len(stub)), f)
	if err != nil {
		return 0, fmt.Errorf("stub: %w", err)
	}
	l, err := program.layOut(stub, sections)
	if err != nil {
		return 0, err
	}
	out := &counter{w: w}
	if _, err := out.Write(l.start); err != nil {
		return out.n, fmt.Errorf("write: %w", err)
	}
	for i, s := range sections {
		n, err := io.Copy(out, io.NewSectionReader(s.Data, 0, s.Size))
		if err != nil {
			return out.n, fmt.Errorf("section %s: %w", s.Name, err)
		}
		if n != s.Size {
			return out.n, fmt.Errorf("section %s: %w: %d bytes of %d", s.Name, errCut, n, s.Size)
		}
		if _, err := out.Write(make([]byte, int64(l.headers[i].SizeOfRawData)-n)); err != nil {
			return out.n, fmt.Errorf("write: %w", err)
		}
	}
	return out.n, nil
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// layout is where everything goes.
type layout struct {
	start   []byte // the stub with new headers, up to the first new section
	headers []pe.SectionHeader32
}

func (e efi) layOut(stub []byte, sections []Section) (layout, error) {
	if len(sections) == 0 || len(sections) > MaxSections {
		return layout{}, fmt.Errorf("%d sections are not 1 to %d", len(sections), MaxSections)
	}
	fileEnd, memoryEnd := int64(e.opt.SizeOfHeaders), int64(e.opt.SizeOfHeaders)
	firstRaw := int64(len(stub))
	names := map[string]bool{}
	for _, s := range e.Sections {
		names[s.Name] = true
		if s.Size > 0 {
			fileEnd = max(fileEnd, int64(s.Offset)+int64(s.Size))
			firstRaw = min(firstRaw, int64(s.Offset))
		}
		memoryEnd = max(memoryEnd, int64(s.VirtualAddress)+int64(s.VirtualSize))
	}
	at := e.newHeaderAt(stub)
	end := at + peSection*int64(len(sections))
	if end > int64(e.opt.SizeOfHeaders) || end > firstRaw || end > int64(len(stub)) {
		return layout{}, fmt.Errorf("the stub has no room for %d more section headers", len(sections))
	}
	if slices.ContainsFunc(stub[at:end], func(c byte) bool { return c != 0 }) {
		return layout{}, errors.New("the stub has something else behind its section headers")
	}
	align := int64(e.opt.FileAlignment)
	l := layout{start: make([]byte, up(fileEnd, align))}
	copy(l.start, stub[:fileEnd]) // what is behind the sections is a signature or symbols
	file, memory := int64(len(l.start)), memoryEnd
	var added int64
	for i, s := range sections {
		if len(s.Name) > 8 || len(s.Name) < 2 || s.Name[0] != '.' || names[s.Name] {
			return layout{}, fmt.Errorf("section %.20q: the name is wrong, or there twice", s.Name)
		}
		names[s.Name] = true
		if s.Size <= 0 || s.Size > MaxImage || s.Data == nil {
			return layout{}, fmt.Errorf("section %s: %d bytes are not 1 to %d", s.Name, s.Size, MaxImage)
		}
		memory = up(memory, max(ukiAlignment, int64(e.opt.SectionAlignment)))
		raw := up(s.Size, align)
		if file+raw > MaxImage || memory+s.Size > math.MaxInt32 {
			return layout{}, fmt.Errorf("section %s: the image would have more than %d bytes", s.Name, MaxImage)
		}
		h := pe.SectionHeader32{
			VirtualSize: uint32(s.Size), VirtualAddress: uint32(memory),
			SizeOfRawData: uint32(raw), PointerToRawData: uint32(file),
			Characteristics: pe.IMAGE_SCN_CNT_INITIALIZED_DATA | pe.IMAGE_SCN_MEM_READ,
		}
		copy(h.Name[:], s.Name)
		if _, err := binary.Encode(l.start[at+peSection*int64(i):], binary.LittleEndian, h); err != nil {
			return layout{}, fmt.Errorf("section %s: header: %w", s.Name, err)
		}
		l.headers = append(l.headers, h)
		file, memory, added = file+raw, memory+s.Size, added+raw
	}
	return l, e.patch(l.start, len(sections), memory, added)
}

// patch corrects the headers of the program for the sections that were added.
func (e efi) patch(b []byte, sections int, memoryEnd, added int64) error {
	start := int64(binary.LittleEndian.Uint32(b[peOffset:])) + 4
	h := e.FileHeader
	h.NumberOfSections += uint16(sections)
	h.PointerToSymbolTable, h.NumberOfSymbols = 0, 0
	opt := *e.opt
	// The stub's own alignment in memory may be smaller than a page; the size must be a multiple of it.
	opt.SizeOfImage = uint32(up(memoryEnd, max(ukiAlignment, int64(opt.SectionAlignment))))
	opt.SizeOfInitializedData += uint32(added)
	opt.CheckSum = 0 // EFI ignores it
	if opt.NumberOfRvaAndSizes > peCertificates {
		opt.DataDirectory[peCertificates] = pe.DataDirectory{}
	}
	if _, err := binary.Encode(b[start:], binary.LittleEndian, h); err != nil {
		return fmt.Errorf("file header: %w", err)
	}
	// The directories that the stub does not have are not written.
	all, err := binary.Append(nil, binary.LittleEndian, opt)
	if err != nil {
		return fmt.Errorf("optional header: %w", err)
	}
	size := min(int(h.SizeOfOptionalHeader), len(all))
	copy(b[start+peFileHeader:], all[:size])
	return nil
}

// up is n, rounded up to a multiple of align, a power of two.
func up(n, align int64) int64 { return (n + align - 1) &^ (align - 1) }

// ReadUKI takes apart a unified kernel image: its sections by name. It fails
// with what a firmware or a stub could not boot: a section that is cut off,
// overlaps another, is not aligned, or .linux missing. Padding is no part of a section.
func ReadUKI(r io.ReaderAt, size int64, f Firmware) (map[string]Section, error) {
	sections, err := readUKI(r, size, f)
	if err != nil {
		return nil, fmt.Errorf("this is no unified kernel image: %w", err)
	}
	return sections, nil
}

func readUKI(r io.ReaderAt, size int64, f Firmware) (map[string]Section, error) {
	program, err := readEFI(r, size, f)
	if err != nil {
		return nil, err
	}
	sections := map[string]Section{}
	for _, s := range program.Sections {
		n := int64(min(s.Size, s.VirtualSize))
		if s.Offset%program.opt.FileAlignment != 0 {
			return nil, fmt.Errorf("section %q is not aligned in the file", s.Name)
		}
		if _, ok := sections[s.Name]; ok {
			return nil, fmt.Errorf("section %q is there twice", s.Name)
		}
		if int64(s.VirtualAddress)+int64(s.VirtualSize) > int64(program.opt.SizeOfImage) {
			return nil, fmt.Errorf("section %q is outside of the image", s.Name)
		}
		sections[s.Name] = Section{Name: s.Name, Data: io.NewSectionReader(r, int64(s.Offset), n), Size: n}
	}
	for _, name := range []string{".linux", ".cmdline", ".initrd"} {
		if sections[name].Size == 0 {
			return nil, fmt.Errorf("it has no section %s", name)
		}
	}
	return sections, nil
}

// UKICheck checks a unified kernel image with its kernel and initramfs.
func UKICheck(f Firmware) Check {
	return func(r io.ReaderAt, size int64) error {
		sections, err := ReadUKI(r, size, f)
		if err != nil {
			return err
		}
		kernel, initramfs := sections[".linux"], sections[".initrd"]
		if err := KernelCheck(f)(kernel.Data, kernel.Size); err != nil {
			return err
		}
		return InitramfsCheck(initramfs.Data, initramfs.Size)
	}
}
