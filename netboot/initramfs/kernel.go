package initramfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
)

// Kernel is a kernel image that a boot loader takes.
type Kernel struct {
	Version  string // 6.12.1-amd64, as uname -r and as the name of its tree of modules
	Size     int64  // bytes
	Protocol uint16 // of booting, 0x020f is 2.15
	EFI      bool   // firmware can start it itself
}

// KernelImage reads the header of an x86 kernel (Documentation/arch/x86/boot.rst)
// and says whether the file is whole. The check sum at its end is none: signed
// images have a wrong one, new kernels have none.
func KernelImage(path string) (Kernel, error) {
	f, err := os.Open(path)
	if err != nil {
		return Kernel{}, fmt.Errorf("read kernel: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Kernel{}, fmt.Errorf("read kernel: %w", err)
	}
	k, err := parseKernel(f, info.Size())
	if err != nil {
		return Kernel{}, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

func parseKernel(r io.ReaderAt, size int64) (Kernel, error) {
	const (
		sector   = 512
		needs    = 0x250 // bytes of the header that are read here
		maxSetup = 64    // sectors; boot loaders take no more
	)
	h := make([]byte, needs)
	if n, err := r.ReadAt(h, 0); err != nil && err != io.EOF {
		return Kernel{}, err
	} else if n < needs {
		return Kernel{}, fmt.Errorf("no kernel: it has only %d bytes", n)
	}
	if string(h[0x202:0x206]) != "HdrS" || h[0x1fe] != 0x55 || h[0x1ff] != 0xaa {
		return Kernel{}, fmt.Errorf("no x86 kernel (vmlinuz, bzImage): the boot header is missing")
	}
	k := Kernel{Size: size, Protocol: binary.LittleEndian.Uint16(h[0x206:])}
	if k.Protocol < 0x0206 {
		return Kernel{}, fmt.Errorf("boot protocol %d.%02d is older than 2.06: too old a kernel", k.Protocol>>8, k.Protocol&0xff)
	}
	setup := int64(h[0x1f1])
	if setup == 0 {
		setup = 4
	}
	body := int64(binary.LittleEndian.Uint32(h[0x1f4:])) * 16
	want := (setup+1)*sector + body
	if setup > maxSetup || body == 0 {
		return Kernel{}, fmt.Errorf("the boot header of the kernel is damaged")
	}
	if size < want {
		return Kernel{}, fmt.Errorf("the kernel is truncated: %d of %d bytes; copy or install it again", size, want)
	}
	k.EFI = h[0] == 'M' && h[1] == 'Z'
	at := int64(binary.LittleEndian.Uint16(h[0x20e:])) + sector
	if at == sector || at >= (setup+1)*sector {
		return Kernel{}, fmt.Errorf("the boot header of the kernel names no version")
	}
	text := make([]byte, 256)
	n, err := r.ReadAt(text, at)
	if err != nil && err != io.EOF {
		return Kernel{}, err
	}
	line, _, ended := bytes.Cut(text[:n], []byte{0})
	version, _, _ := bytes.Cut(line, []byte{' '})
	if !ended || len(version) == 0 || bytes.ContainsFunc(version, func(c rune) bool { return c <= ' ' || c > '~' || c == '/' }) {
		return Kernel{}, fmt.Errorf("the version of the kernel is damaged")
	}
	k.Version = string(version)
	return k, nil
}
