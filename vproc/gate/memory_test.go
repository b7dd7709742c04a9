package gate

import (
	"bytes"
	"encoding/binary"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"ssi/vproc/call"
)

// words is a structure of 32-bit members.
func words(v ...uint32) []byte {
	var b []byte
	for _, w := range v {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// pattern is n bytes that tell their place.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + 1)
	}
	return b
}

func TestMemoryIn(t *testing.T) {
	p := caller(t)
	h := &recorder{}
	open(t, h, p.listener)
	pid := foreignPID(1)
	attr := func(size uint32, n int) []byte {
		b := pattern(n)
		binary.LittleEndian.PutUint32(b, size)
		return b
	}
	for _, c := range []struct {
		name string
		nr   uint64
		args [6]uint64
		arg  int
		data []byte
		want []byte
	}{
		{"siginfo", unix.SYS_RT_SIGQUEUEINFO, [6]uint64{pid, 9}, 2, pattern(128), pattern(128)},
		{"siginfo of a thread", unix.SYS_RT_TGSIGQUEUEINFO, [6]uint64{pid, pid, 9}, 3, pattern(128), pattern(128)},
		{"mask", unix.SYS_SCHED_SETAFFINITY, [6]uint64{pid, 24}, 2, pattern(24), pattern(24)},
		{"mask of no length", unix.SYS_SCHED_SETAFFINITY, [6]uint64{pid, 1 << 32}, 2, pattern(24), nil},
		{"limits", unix.SYS_PRLIMIT64, [6]uint64{pid, 7}, 2, pattern(16), pattern(16)},
		{"attributes, first version", unix.SYS_SCHED_SETATTR, [6]uint64{pid}, 1, attr(48, 100), attr(48, 48)},
		{"attributes, no length", unix.SYS_SCHED_SETATTR, [6]uint64{pid}, 1, attr(0, 100), attr(0, 48)},
		{"attributes, longer", unix.SYS_SCHED_SETATTR, [6]uint64{pid}, 1, attr(4096, 4096), attr(4096, 4096)},
		{"attributes, too short", unix.SYS_SCHED_SETATTR, [6]uint64{pid}, 1, attr(47, 47), attr(47, 4)},
		{"attributes, too long", unix.SYS_SCHED_SETATTR, [6]uint64{pid}, 1, attr(1<<31, 100), attr(1<<31, 4)},
	} {
		if r := p.call(c.nr, c.args, memArg{c.arg, c.data}); r.Errno != 0 {
			t.Errorf("%s: %v", c.name, r.Errno)
		}
		if q := h.last(t); !bytes.Equal(q.In, c.want) || q.Args[c.arg] != 1 {
			t.Errorf("%s: %x, want %x; %x", c.name, q.In, c.want, q.Args)
		}
	}
	if r := p.call(unix.SYS_SCHED_SETPARAM, [6]uint64{pid, 0}); r.Errno != 0 {
		t.Error(r.Errno)
	}
	if q := h.last(t); len(q.In) != 0 || q.Args[1] != 0 {
		t.Errorf("a null pointer: %x, %x", q.In, q.Args)
	}
}

func TestMemoryOut(t *testing.T) {
	p := caller(t)
	h := &recorder{answer: func(q *call.Request) call.Outcome {
		o := value(5)
		o.Reply.Out = pattern(int(q.OutLen))
		switch q.Nr {
		case call.SchedGetaffinity:
			o.Reply.Out = pattern(8)
		case call.SchedSetattr:
			o.Reply.Errno = unix.E2BIG
		case call.SchedGetparam:
			o.Reply.Out = pattern(1000) // more than there is room for
		case call.SchedGetattr:
			o.Reply.Out = nil
		}
		return o
	}}
	open(t, h, p.listener)
	pid := foreignPID(1)
	empty := func(n int) []byte { return bytes.Repeat([]byte{0xee}, n) }
	for _, c := range []struct {
		name string
		nr   uint64
		args [6]uint64
		mem  []memArg
		want [][]byte
		e    syscall.Errno
	}{
		{"mask", unix.SYS_SCHED_GETAFFINITY, [6]uint64{pid, 128}, []memArg{{2, empty(128)}}, [][]byte{append(pattern(8), empty(120)...)}, 0},
		{"limits", unix.SYS_PRLIMIT64, [6]uint64{pid, 7}, []memArg{{3, empty(20)}}, [][]byte{append(pattern(16), empty(4)...)}, 0},
		{"limits, both", unix.SYS_PRLIMIT64, [6]uint64{pid, 7}, []memArg{{2, pattern(16)}, {3, empty(16)}}, [][]byte{pattern(16), pattern(16)}, 0},
		{"interval", unix.SYS_SCHED_RR_GET_INTERVAL, [6]uint64{pid}, []memArg{{1, empty(16)}}, [][]byte{pattern(16)}, 0},
		{"parameter", unix.SYS_SCHED_GETPARAM, [6]uint64{pid}, []memArg{{1, empty(8)}}, [][]byte{append(pattern(4), empty(4)...)}, 0},
		{"also if it fails", unix.SYS_SCHED_SETATTR, [6]uint64{pid}, []memArg{{1, words(47, 1)}}, [][]byte{append(pattern(4), words(1)...)}, unix.E2BIG},
		{"nothing", unix.SYS_SCHED_GETATTR, [6]uint64{pid, 0, 48}, []memArg{{1, empty(48)}}, [][]byte{empty(48)}, 0},
		{"two pieces", call.ClusterBase + 3, [6]uint64{0, 3}, []memArg{{0, empty(8)}, {2, empty(16)}}, [][]byte{pattern(20)[:8], append(append([]byte(nil), pattern(20)[8:]...), empty(4)...)}, 0},
	} {
		r := p.call(c.nr, c.args, c.mem...)
		if r.Errno != c.e || c.e == 0 && r.Ret != 5 {
			t.Errorf("%s: %d, %v", c.name, r.Ret, r.Errno)
		}
		for i, want := range c.want {
			if !bytes.Equal(r.Mem[i], want) {
				t.Errorf("%s: %x, want %x", c.name, r.Mem[i], want)
			}
		}
	}
}

// Memory that is not there, or not the caller's to write.
func TestFault(t *testing.T) {
	p := caller(t)
	h := &recorder{answer: func(q *call.Request) call.Outcome {
		o := value(0)
		o.Reply.Out = pattern(int(q.OutLen))
		return o
	}}
	open(t, h, p.listener)
	pid := foreignPID(1)
	mapped := func(prot uint64, pages uint64) uint64 {
		r := p.call(unix.SYS_MMAP, [6]uint64{0, pages * 4096, prot, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, 1<<64 - 1, 0})
		if r.Errno != 0 {
			t.Fatal(r.Errno)
		}
		return uint64(r.Ret)
	}
	two := mapped(unix.PROT_READ|unix.PROT_WRITE, 2) // two mappings
	if r := p.call(unix.SYS_MPROTECT, [6]uint64{two + 4096, 4096, unix.PROT_READ | unix.PROT_WRITE | unix.PROT_EXEC}); r.Errno != 0 {
		t.Fatal(r.Errno)
	}
	readOnly, none := mapped(unix.PROT_READ, 1), mapped(unix.PROT_NONE, 1)
	hole := mapped(unix.PROT_READ|unix.PROT_WRITE, 2) // its second page is not there; the last mapping, or another would get it
	if r := p.call(unix.SYS_MUNMAP, [6]uint64{hole + 4096, 4096}); r.Errno != 0 {
		t.Fatal(r.Errno)
	}
	for _, c := range []struct {
		name    string
		addr    uint64
		in, out syscall.Errno
	}{
		{"small", 8, unix.EFAULT, unix.EFAULT},
		{"end of memory", 1<<64 - 8, unix.EFAULT, unix.EFAULT},
		{"around the end of memory", 1<<64 - 1, unix.EFAULT, unix.EFAULT},
		{"of the kernel", 0xffff888000000000, unix.EFAULT, unix.EFAULT},
		{"not canonical", 1 << 60, unix.EFAULT, unix.EFAULT},
		{"not mapped", hole + 4096, unix.EFAULT, unix.EFAULT},
		{"half mapped", hole + 4096 - 8, unix.EFAULT, unix.EFAULT},
		{"just mapped", hole + 4096 - 16, 0, 0},
		{"read only", readOnly, 0, unix.EFAULT},
		{"nothing allowed", none, unix.EFAULT, unix.EFAULT},
		{"two mappings", two + 4096 - 8, 0, 0},
	} {
		before := h.count()
		if r := p.call(unix.SYS_PRLIMIT64, [6]uint64{pid, 7, c.addr, 0}); r.Errno != c.in {
			t.Errorf("%s: read: %v, want %v", c.name, r.Errno, c.in)
		} else if asked := h.count() > before; asked != (c.in == 0) {
			t.Errorf("%s: read: the handler was asked: %v", c.name, asked)
		}
		if r := p.call(unix.SYS_PRLIMIT64, [6]uint64{pid, 7, 0, c.addr}); r.Errno != c.out {
			t.Errorf("%s: write: %v, want %v", c.name, r.Errno, c.out)
		}
	}
	// What was not to be written to is unchanged.
	if r := p.call(unix.SYS_PRLIMIT64, [6]uint64{pid, 7, readOnly, 0}); r.Errno != 0 || !bytes.Equal(h.last(t).In, make([]byte, 16)) {
		t.Errorf("%v, %x", r.Errno, h.last(t).In)
	}
}

// fake is a memory with one range, filled with a pattern.
type fake struct {
	start   uint64
	data    []byte
	written map[uint64]byte
}

func (m *fake) read(addr uint64, b []byte) unix.Errno {
	if addr < m.start || addr-m.start > uint64(len(m.data)) || uint64(len(b)) > uint64(len(m.data))-(addr-m.start) {
		return unix.EFAULT
	}
	copy(b, m.data[addr-m.start:])
	return 0
}

func (m *fake) write(addr uint64, b []byte) unix.Errno {
	if e := m.read(addr, make([]byte, len(b))); e != 0 {
		return e
	}
	for i, v := range b {
		m.written[addr+uint64(i)] = v
	}
	return 0
}

// A 32-bit program has structures and addresses of its own.
func TestCompat(t *testing.T) {
	rows := newRows()
	const base = 0x10000
	frameOf := func(nr int32, args [6]uint64) *frame {
		n := notificationOf(unix.AUDIT_ARCH_I386, nr, args)
		return newFrame(rows.of(&n), &n)
	}
	m := &fake{start: base, data: words(9, 0, 0xffffffff, 77, 1000, 0x87654321), written: map[uint64]byte{}}
	m.data = append(m.data, make([]byte, 200)...)
	r, e := frameOf(178, [6]uint64{7<<32 | 1<<20, 9, 5<<32 | base}).request(m) // rt_sigqueueinfo
	want := append(words(9, 0, 0xffffffff, 0, 77, 1000, 0x87654321), make([]byte, 100)...)
	if e != 0 || !bytes.Equal(r.In, want) || r.Args[0] != 1<<20 {
		t.Errorf("siginfo: %v, %x, want %x, %x", e, r.In, want, r.Args)
	}
	copy(m.data, words(29, 0, 0xfffffffb, 0x80000001, 12)) // SI_SIGIO: a long that is negative
	r, e = frameOf(178, [6]uint64{1 << 20, 9, base}).request(m)
	want = append(words(29, 0, 0xfffffffb, 0, 0x80000001, 0xffffffff, 12), make([]byte, 100)...)
	if e != 0 || !bytes.Equal(r.In, want) {
		t.Errorf("siginfo of SIGIO: %v, %x, want %x", e, r.In, want)
	}
	f := frameOf(161, [6]uint64{1 << 20, base}) // sched_rr_get_interval
	r, e = f.request(m)
	if e != 0 || r.OutLen != 16 {
		t.Fatalf("interval: %v, %d", e, r.OutLen)
	}
	if e := f.write(m, words(3, 0, 500, 0)); e != 0 {
		t.Error(e)
	}
	if got := m.take(); !bytes.Equal(got, words(3, 500)) {
		t.Errorf("interval: %x", got)
	}
	f = frameOf(423, [6]uint64{1 << 20, base}) // sched_rr_get_interval_time64
	if _, e = f.request(m); e != 0 {
		t.Fatal(e)
	}
	if e := f.write(m, words(3, 0, 500, 0)); e != 0 || !bytes.Equal(m.take(), words(3, 0, 500, 0)) {
		t.Errorf("interval of 64 bits: %v", e)
	}
	f = frameOf(242, [6]uint64{1 << 20, 4, base}) // sched_getaffinity of 4 bytes
	r, e = f.request(m)
	if e != 0 || r.Args[1] != 8 || r.OutLen != 8 {
		t.Fatalf("mask: %v, %x", e, r.Args)
	}
	if e := f.write(m, words(3, 1)); e != 0 || !bytes.Equal(m.take(), words(3)) || f.result(8) != 4 {
		t.Errorf("mask: %v, %d", e, f.result(8))
	}
}

// take is what was written, from the start on.
func (m *fake) take() []byte {
	var b []byte
	for i := m.start; len(m.written) > 0; i++ {
		b = append(b, m.written[i])
		delete(m.written, i)
	}
	return b
}
