package loader

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// newc makes a cpio archive of files.
func newc(files ...string) []byte {
	var b bytes.Buffer
	pad := func() {
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
	}
	for i, name := range append(files, cpioEnd) {
		data := []byte("content of " + name)
		if name == cpioEnd {
			data = nil
		}
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", i+1, 0o100644, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
		b.WriteString(name + "\x00")
		pad()
		b.Write(data)
		pad()
	}
	return b.Bytes()
}

func gz(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

func zst(b []byte) []byte {
	w, _ := zstd.NewWriter(nil)
	return w.EncodeAll(b, nil)
}

func xzip(t testing.TB, b []byte) []byte {
	var out bytes.Buffer
	w, err := xz.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// bzImage makes what looks like a kernel for BIOS of that release.
func bzImage(release string) []byte {
	b := make([]byte, 2*512+16*64)
	b[bzSetupSects] = 1
	binary.LittleEndian.PutUint32(b[bzSysSize:], 64)
	binary.LittleEndian.PutUint16(b[bzBootFlag:], 0xaa55)
	copy(b[bzMagic:], "HdrS")
	binary.LittleEndian.PutUint16(b[bzVersion:], 0x020f)
	binary.LittleEndian.PutUint16(b[bzRelease:], 0x100)
	copy(b[0x300:], release+" (somebody) #1 SMP\x00")
	return b
}

// stub is the systemd stub of this machine.
func stub(t testing.TB) []byte {
	found, _ := Find("/")
	for _, l := range found {
		if l.Name == StubX64 {
			b, err := os.ReadFile(l.Path)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
	t.Skip("there is no systemd stub: apt install systemd-boot-efi")
	return nil
}

func write(t testing.TB, name string, data []byte) string {
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func section(name string, data []byte) Section {
	return Section{Name: name, Data: bytes.NewReader(data), Size: int64(len(data))}
}

func content(t testing.TB, s Section) []byte {
	b, err := io.ReadAll(io.NewSectionReader(s.Data, 0, s.Size))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
