package sys

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"unsafe"
)

// hollow is never called here: its bytes are copied.
func hollow() //nolint:unused // in assembly

// hollowText is where the bytes are.
func hollowText() uintptr

// hollowEnd follows the last instruction.
const hollowEnd = "SSI-END\n"

// Hollow is the executable file of a hollow process: elf(5), static, one segment
// that can be read and executed.
func Hollow() []byte {
	const base, page, most = 0x10000000, 0x1000, 1024
	at := hollowText()
	text := unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&at))), most)
	text = text[:bytes.Index(text, []byte(hollowEnd))]
	head := uint64(binary.Size(elf.Header64{}) + 2*binary.Size(elf.Prog64{}))
	size := head + uint64(len(text))
	file := bytes.NewBuffer(nil)
	for _, part := range []any{
		elf.Header64{
			Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
			Entry: base + head, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 2,
		},
		elf.Prog64{
			Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
			Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Align: page,
		},
		elf.Prog64{Type: uint32(elf.PT_GNU_STACK), Flags: uint32(elf.PF_R | elf.PF_W), Align: 16},
		text,
	} {
		_ = binary.Write(file, binary.LittleEndian, part) // a buffer takes all
	}
	return file.Bytes()
}
