package initramfs

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

// image is a kernel of two sectors of setup and 64 bytes.
func image() []byte {
	b := make([]byte, 3*512+64)
	copy(b, "MZ")
	b[0x1f1] = 2
	binary.LittleEndian.PutUint32(b[0x1f4:], 4)
	copy(b[0x1fe:], "\x55\xaa")
	copy(b[0x202:], "HdrS\x0f\x02")
	binary.LittleEndian.PutUint16(b[0x20e:], 0x200)
	copy(b[0x400:], "6.12.1-amd64 (builder@host) #1 SMP\x00")
	return b
}

func TestKernelImage(t *testing.T) {
	parse := func(b []byte) (Kernel, error) { return parseKernel(bytes.NewReader(b), int64(len(b))) }
	whole := image()
	if k, err := parse(whole); err != nil || k != (Kernel{"6.12.1-amd64", int64(len(whole)), 0x20f, true}) {
		t.Errorf("%+v, %v", k, err)
	}
	change := func(at int, s string) []byte {
		b := image()
		copy(b[at:], s)
		return b
	}
	for want, b := range map[string][]byte{
		"no kernel: it has only 7 bytes":         []byte("garbage"),
		"no x86 kernel":                          make([]byte, 4096),
		"the kernel is truncated: 1599 of 1600 ": whole[:len(whole)-1],
		"header of the kernel is damaged":        change(0x1f4, "\x00"),
		"names no version":                       change(0x20e, "\x00\xff"),
		"version of the kernel is damaged":       change(0x400, "../x"),
		"too old a kernel":                       change(0x206, "\x00"),
	} {
		if k, err := parse(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v, %v; want %q", k, err, want)
		}
	}
	if _, err := KernelImage("/nosuch"); err == nil {
		t.Error("no error without a file")
	}
}

func FuzzKernelImage(f *testing.F) {
	f.Add(image())
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := parseKernel(bytes.NewReader(b), int64(len(b)))
		if err == nil && (k.Version == "" || strings.Contains(k.Version, "/")) {
			t.Errorf("version %q", k.Version)
		}
	})
}
