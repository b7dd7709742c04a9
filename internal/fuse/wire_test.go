package fuse

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// request is what the kernel sends, as struct fuse_in_header and a body.
func request(op Op, unique, node uint64, body []byte) []byte {
	le := binary.NativeEndian
	b := le.AppendUint32(nil, uint32(inHeaderLen+len(body)))
	b = le.AppendUint32(b, uint32(op))
	b = le.AppendUint64(b, unique)
	b = le.AppendUint64(b, node)
	b = le.AppendUint32(b, 1000)
	b = le.AppendUint32(b, 100)
	b = le.AppendUint32(b, 4321)
	b = le.AppendUint32(b, 0)
	return append(b, body...)
}

func u64s(v ...uint64) (b []byte) {
	for _, v := range v {
		b = binary.NativeEndian.AppendUint64(b, v)
	}
	return b
}

func u32s(v ...uint32) (b []byte) {
	for _, v := range v {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return b
}

func TestParse(t *testing.T) {
	read := append(u64s(7, 4096), u32s(512, 0)...)
	write := func(size uint32) []byte { // struct fuse_write_in
		return append(append(u64s(7, 11), u32s(size, 0)...), make([]byte, 16)...)
	}
	for _, c := range []struct {
		name string
		in   []byte
		want *Request // nil: refused
	}{
		{"lookup", request(Lookup, 2, 1, []byte("self\x00")), &Request{Op: Lookup, Node: 1, Name: "self", unique: 2}},
		{"lookup of nothing", request(Lookup, 2, 1, []byte{0}), nil},
		{"lookup without an end", request(Lookup, 2, 1, []byte("self")), nil},
		{"lookup without a name", request(Lookup, 2, 1, nil), nil},
		{"getattr", request(Getattr, 4, 9, make([]byte, 16)), &Request{Op: Getattr, Node: 9, unique: 4}},
		{"read", request(Read, 6, 9, append(read, make([]byte, 16)...)), &Request{Op: Read, Node: 9, Handle: 7, Offset: 4096, Size: 512, unique: 6}},
		{"readdirplus", request(ReaddirPlus, 6, 1, read), &Request{Op: ReaddirPlus, Node: 1, Handle: 7, Offset: 4096, Size: 512, unique: 6}},
		{"short read", request(Read, 6, 9, read[:19]), nil},
		{"write", request(Write, 6, 9, append(write(3), "500"...)), &Request{Op: Write, Node: 9, Offset: 11, Input: []byte("500"), unique: 6}},
		{"write of less", request(Write, 6, 9, append(write(4), "500"...)), nil},
		{"write of more", request(Write, 6, 9, append(write(2), "500"...)), nil},
		{"long write", request(Write, 6, 9, append(write(MaxWrite+1), make([]byte, MaxWrite+1)...)), nil},
		{"short write", request(Write, 6, 9, write(0)[:39]), nil},
		{"setattr", request(Setattr, 6, 9, append(u32s(SetSize|1<<9, 0), make([]byte, 80)...)), &Request{Op: Setattr, Node: 9, Set: SetSize | 1<<9, unique: 6}},
		{"short setattr", request(Setattr, 6, 9, make([]byte, 87)), nil},
		{"releasedir", request(Releasedir, 8, 1, u64s(7, 0, 0)), &Request{Op: Releasedir, Node: 1, Handle: 7, unique: 8}},
		{"short releasedir", request(Releasedir, 8, 1, u32s(7)), nil},
		{"interrupt", request(interrupt, 3, 0, u64s(2)), &Request{Op: interrupt, Offset: 2, unique: 3}},
		{"resent", request(Getattr, 1<<63|4, 9, nil), &Request{Op: Getattr, Node: 9, unique: 1<<63 | 4}},
		{"unknown", request(4096, 8, 1, []byte("x")), &Request{Op: 4096, Node: 1, unique: 8}},
		{"cut", request(Getattr, 4, 9, nil)[:39], nil},
		{"of another length", append(request(Getattr, 4, 9, nil), 0), nil},
		{"empty", nil, nil},
	} {
		r, ok := parse(c.in)
		if ok != (c.want != nil) {
			t.Errorf("%s: accepted %v", c.name, ok)
			continue
		}
		if !ok {
			continue
		}
		c.want.UID, c.want.GID, c.want.PID = 1000, 100, 4321
		if !reflect.DeepEqual(r, c.want) {
			t.Errorf("%s:\n%+v, want\n%+v", c.name, *r, *c.want)
		}
	}
}

// The flags of the connection are those that both sides know.
func TestInit(t *testing.T) {
	all := u32s(7, 44, 131072, 0xffffffff, 0xffffffff)
	r, ok := parse(request(initialise, 1, 0, append(all, make([]byte, 44)...)))
	if !ok {
		t.Fatal("FUSE_INIT is refused")
	}
	b, e := initOut(r)
	if e != 0 || len(b) != initOutLen {
		t.Fatalf("%d bytes, errno %d", len(b), e)
	}
	le := binary.NativeEndian
	if flags := uint64(le.Uint32(b[12:])) | uint64(le.Uint32(b[32:]))<<32; flags != wanted {
		t.Errorf("flags %#x, want %#x", flags, uint64(wanted))
	}
	if le.Uint32(b) != major || le.Uint32(b[4:]) != minor || le.Uint32(b[8:]) != 131072 || le.Uint32(b[20:]) != MaxWrite {
		t.Errorf("% x", b)
	}
	old, _ := parse(request(initialise, 1, 0, u32s(7, 9, 0, flagAsyncRead)))
	if b, e = initOut(old); e != 0 || le.Uint32(b[12:]) != flagAsyncRead {
		t.Errorf("an old kernel got flags %#x, errno %d", le.Uint32(b[12:]), e)
	}
	if other, _ := parse(request(initialise, 1, 0, u32s(8, 0, 0, 0))); true {
		if _, e := initOut(other); e != unix.EPROTO {
			t.Errorf("version 8: errno %d", e)
		}
	}
}

// The sizes and places are those of include/uapi/linux/fuse.h.
func TestLayout(t *testing.T) {
	le := binary.NativeEndian
	at := time.Unix(1700000000, 42)
	b := appendEntry(nil, &Entry{
		Node: 5, EntryTTL: 1500 * time.Millisecond, AttrTTL: 2 * time.Second,
		Attr: Attr{Size: 513, Mtime: at, Mode: unix.S_IFREG | 0o444, Nlink: 1, UID: 3, GID: 4},
	})
	if len(b) != entryLen || entryLen != 128 {
		t.Fatalf("an entry has %d bytes", len(b))
	}
	if le.Uint64(b) != 5 || le.Uint64(b[16:]) != 1 || le.Uint64(b[24:]) != 2 || le.Uint32(b[32:]) != 5e8 || le.Uint32(b[36:]) != 0 {
		t.Errorf("head of an entry: % x", b[:40])
	}
	a := b[40:]
	if le.Uint64(a) != 5 || le.Uint64(a[8:]) != 513 || le.Uint64(a[16:]) != 2 || le.Uint64(a[32:]) != 1700000000 || le.Uint32(a[52:]) != 42 ||
		le.Uint32(a[60:]) != unix.S_IFREG|0o444 || le.Uint32(a[64:]) != 1 || le.Uint32(a[68:]) != 3 || le.Uint32(a[72:]) != 4 {
		t.Errorf("attributes: % x", a)
	}
	for _, name := range []string{"1", "1234567", "12345678", "123456789"} {
		d := appendDirent(nil, &Dirent{Name: name, Node: 6, Off: 7, Type: unix.S_IFDIR})
		if len(d) != direntSize(name) || len(d)%8 != 0 || le.Uint64(d) != 6 || le.Uint64(d[8:]) != 7 ||
			le.Uint32(d[16:]) != uint32(len(name)) || le.Uint32(d[20:]) != unix.DT_DIR || !bytes.HasPrefix(d[24:], []byte(name)) {
			t.Errorf("entry %q: % x", name, d)
		}
	}
}

// What a hostile sender could write: no panic, and nothing that points into the buffer.
func FuzzParse(f *testing.F) {
	f.Add(request(Lookup, 2, 1, []byte("self\x00")))
	f.Add(request(Read, 2, 1, make([]byte, 40)))
	f.Add(request(Write, 2, 1, append(append(u64s(7, 11), u32s(1, 0)...), make([]byte, 17)...)))
	f.Add(request(initialise, 1, 0, u32s(7, 40, 0, 1<<30, 1)))
	f.Add(request(interrupt, 1, 0, u64s(2)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok := parse(b)
		if !ok {
			return
		}
		input := bytes.Clone(r.Input)
		name := r.Name
		before := name + "x"
		clear(b)
		if name+"x" != before {
			t.Error("the name lies in the buffer")
		}
		if !bytes.Equal(r.Input, input) || len(input) > MaxWrite {
			t.Errorf("%d bytes to be written, which lie in the buffer or are too many", len(input))
		}
		if r.Op == Lookup && name == "" {
			t.Error("a lookup of nothing")
		}
		if r.Op == initialise {
			if out, e := initOut(r); e == 0 && len(out) != initOutLen {
				t.Errorf("%d bytes", len(out))
			}
		}
	})
}
