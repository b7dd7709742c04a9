package initramfs

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// module makes the smallest ELF file that is a module: a .modinfo of fields.
func module(fields ...string) []byte {
	var info bytes.Buffer
	for _, f := range fields {
		info.WriteString(f + "\x00")
	}
	names := "\x00.modinfo\x00.shstrtab\x00"
	const head = 64
	shoff := head + info.Len() + len(names)
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01")
	b.Write(make([]byte, 9))
	le := binary.LittleEndian
	put := func(vs ...any) {
		for _, v := range vs {
			if err := binary.Write(&b, le, v); err != nil {
				panic(err)
			}
		}
	}
	put(uint16(1), uint16(62), uint32(1), uint64(0), uint64(0), uint64(shoff), uint32(0), uint16(head), uint16(0), uint16(0), uint16(64), uint16(3), uint16(2))
	b.Write(info.Bytes())
	b.WriteString(names)
	section := func(name, kind uint32, off, size int) {
		put(name, kind, uint64(0), uint64(0), uint64(off), uint64(size), uint32(0), uint32(0), uint64(1), uint64(0))
	}
	section(0, 0, 0, 0)
	section(1, 1, head, info.Len())
	section(10, 3, head+info.Len(), len(names))
	return b.Bytes()
}

// compress does so by the end of a name.
func compress(t testing.TB, name string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w interface {
		Write([]byte) (int, error)
		Close() error
	}
	var err error
	switch filepath.Ext(name) {
	case ".xz":
		w, err = xz.NewWriter(&out)
	case ".zst":
		w, err = zstd.NewWriter(&out)
	case ".gz":
		w = gzip.NewWriter(&out)
	default:
		return b
	}
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

const version = "6.12.0-test"

// mod is the content of a module's file, compressed as its name says.
func mod(t testing.TB, file string, fields ...string) []byte {
	return compress(t, file, module(append(fields, "vermagic="+version+" SMP mod_unload")...))
}

// modtree makes a tree of modules.
func modtree(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), version)
	for name, b := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func sampleTree(t testing.TB) string {
	return modtree(t, map[string][]byte{
		"kernel/net/bonding.ko.xz":        mod(t, ".xz", "name=bonding", "depends=tls"),
		"kernel/net/tls.ko.zst":           mod(t, ".zst", "name=tls", "depends="),
		"kernel/fs/ext4.ko":               mod(t, ".ko", "name=ext4", "depends=jbd2", "softdep=pre: crc32c"),
		"kernel/fs/jbd2.ko.gz":            mod(t, ".gz", "name=jbd2", "depends="),
		"kernel/crypto/crc32c_generic.ko": mod(t, ".ko", "name=crc32c_generic", "depends=", "alias=crc32c"),
		"kernel/net/bnx2.ko":              mod(t, ".ko", "name=bnx2", "depends=", "firmware=bnx2/a.fw", "firmware=bnx2/none.fw"),
		"kernel/sound/snd.ko":             mod(t, ".ko", "name=snd", "depends="),
		"modules.builtin":                 []byte("kernel/fs/fuse/fuse.ko\n"),
	})
}
