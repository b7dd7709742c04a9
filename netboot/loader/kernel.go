package loader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// errCut is the cause when a file ends before the end that its header tells.
var errCut = errors.New("it is cut off")

// Where the header of an x86 kernel has what (Documentation/arch/x86/boot.rst).
const (
	bzSetupSects = 0x1f1 // 512-byte sectors of the setup code; 0 means 4
	bzSysSize    = 0x1f4 // of the protected-mode code, in 16 bytes
	bzBootFlag   = 0x1fe // 0xaa55
	bzMagic      = 0x202 // "HdrS"
	bzVersion    = 0x206 // of the protocol
	bzRelease    = 0x20e // offset of the release from 0x200
	bzHeader     = 0x210 // where we stop reading
)

// Where the header of an arm64 kernel has what (Documentation/arch/arm64/booting.rst,
// drivers/firmware/efi/libstub/zboot-header.S).
const (
	armMagic     = 0x38 // "ARMd"
	zbootMagic   = 4    // "zimg", after "MZ"
	zbootPayload = 8    // offset and size of what is compressed
)

// KernelCheck checks a kernel image for a firmware: its magic, and that it is
// as long as its header and its EFI part say.
func KernelCheck(f Firmware) Check {
	return func(r io.ReaderAt, size int64) error {
		var err error
		if f == UEFIarm64 {
			err = checkARM64(r, size)
		} else {
			err = checkBzImage(r, size)
		}
		if err != nil {
			return fmt.Errorf("this is no kernel for %s: %w", f, err)
		}
		return nil
	}
}

func checkBzImage(r io.ReaderAt, size int64) error {
	h, err := head(r, size, bzHeader)
	if err != nil {
		return err
	}
	if binary.LittleEndian.Uint16(h[bzBootFlag:]) != 0xaa55 || string(h[bzMagic:bzMagic+4]) != "HdrS" {
		return errors.New("it does not have the header of a bzImage")
	}
	if v := binary.LittleEndian.Uint16(h[bzVersion:]); v < 0x0204 {
		return fmt.Errorf("its boot protocol %d.%02d is older than 2.04", v>>8, v&0xff)
	}
	setup := int64(h[bzSetupSects])
	if setup == 0 {
		setup = 4
	}
	need := (setup+1)*512 + 16*int64(binary.LittleEndian.Uint32(h[bzSysSize:]))
	if up(size, 16) < need { // the header rounds up
		return fmt.Errorf("%w: %d bytes of %d", errCut, size, need)
	}
	if string(h[:2]) == "MZ" { // with EFI stub, and maybe a signature behind all of it
		return checkEFI(r, size, UEFIx64)
	}
	return nil
}

func checkARM64(r io.ReaderAt, size int64) error {
	h, err := head(r, size, 64)
	if err != nil {
		return err
	}
	zboot := string(h[zbootMagic:zbootMagic+4]) == "zimg"
	if !zboot && string(h[armMagic:armMagic+4]) != "ARMd" {
		return errors.New("it has neither the header of an Image nor of an EFI zboot image")
	}
	if zboot {
		need := int64(binary.LittleEndian.Uint32(h[zbootPayload:])) + int64(binary.LittleEndian.Uint32(h[zbootPayload+4:]))
		if size < need {
			return fmt.Errorf("%w: %d bytes of %d", errCut, size, need)
		}
	}
	return checkEFI(r, size, UEFIarm64)
}

// Release reads the kernel release ("6.12.30-amd64") from a bzImage, "" if it
// has none.
func Release(r io.ReaderAt, size int64) string {
	h, err := head(r, size, bzHeader)
	if err != nil || string(h[bzMagic:bzMagic+4]) != "HdrS" {
		return ""
	}
	at := int64(binary.LittleEndian.Uint16(h[bzRelease:]))
	if at == 0 {
		return ""
	}
	b := make([]byte, 128)
	n, _ := r.ReadAt(b, 0x200+at) // what was read is looked at, however much it is
	text, _, ok := bytes.Cut(b[:n], []byte{0})
	if !ok {
		return ""
	}
	text, _, _ = bytes.Cut(text, []byte{' '})
	for _, c := range text {
		if c <= ' ' || c > '~' {
			return ""
		}
	}
	return string(text)
}

func head(r io.ReaderAt, size int64, n int) ([]byte, error) {
	if size < int64(n) {
		return nil, fmt.Errorf("%w: it has %d bytes", errCut, size)
	}
	b := make([]byte, n)
	if _, err := r.ReadAt(b, 0); err != nil {
		return nil, err
	}
	return b, nil
}
