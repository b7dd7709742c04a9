package kmod

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

// tree writes files into a new tree of modules; those that end with .ko… are
// compressed modules of the fields.
func tree(t testing.TB, modules map[string][]string, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "6.12.0-test")
	write := func(name string, b []byte) {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, fields := range modules {
		write(name, compress(t, name, module(fields...)))
	}
	for name, text := range files {
		write(name, []byte(text))
	}
	return dir
}

// sample is a tree with what real ones have: dependencies, two modules for one
// alias, soft dependencies, and something built in.
func sample(t testing.TB) string {
	t.Helper()
	return tree(t, map[string][]string{
		"kernel/lib/libcrc32c.ko.xz":         {"name=libcrc32c", "depends=", "softdep=pre: crc32c"},
		"kernel/crypto/crc32c_generic.ko.gz": {"name=crc32c_generic", "depends=", "alias=crypto-crc32c", "alias=crc32c"},
		"kernel/arch/crc32c-intel.ko":        {"name=crc32c_intel", "depends=", "alias=crc32c", "alias=cpu:type:x86,*feature:*0094*"},
		"kernel/net/nf_defrag.ko.zst":        {"name=nf_defrag", "depends="},
		"kernel/net/nf_conntrack.ko":         {"name=nf_conntrack", "depends=nf_defrag,libcrc32c"},
		"kernel/net/ip_vs.ko.xz":             {"name=ip_vs", "depends=nf-conntrack,libcrc32c", "alias=net-pf-16-proto-16-family-IPVS"},
		"kernel/drivers/e1000.ko.xz":         {"name=e1000", "depends=", "alias=pci:v00008086d0000100Esv*sd*bc*sc*i*", "firmware=intel/x.bin"},
		"kernel/drivers/of.ko":               {"name=of", "depends=", "alias=of:N*T*Cacme,nic/*"},
	}, map[string]string{
		"modules.order":           "kernel/arch/crc32c-intel.ko\nkernel/crypto/crc32c_generic.ko\nkernel/lib/libcrc32c.ko\n",
		"modules.builtin":         "kernel/drivers/block/virtio_blk.ko\n",
		"modules.builtin.modinfo": "virtio_blk.alias=virtio:d00000002v*\x00virtio_blk.license=GPL\x00",
	})
}
