package gate

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"ssi/internal/sys"
	"ssi/vproc/call"
)

// rows finds the rows of the table by architecture and number.
type rows struct{ x64, i386 map[int32]*call.Call }

func newRows() rows {
	r := rows{map[int32]*call.Call{}, map[int32]*call.Call{}}
	for _, c := range call.Table() {
		if c.X64 >= 0 {
			r.x64[int32(c.X64)] = &c
		}
		if c.I386 >= 0 {
			r.i386[int32(c.I386)] = &c
		}
	}
	return r
}

// of is the row of n, or nil.
func (r *rows) of(n *sys.Notification) *call.Call {
	switch n.Arch {
	case unix.AUDIT_ARCH_X86_64:
		return r.x64[n.Nr]
	case unix.AUDIT_ARCH_I386:
		return r.i386[n.Nr]
	}
	return nil
}

// memory is that of a caller. Addresses are what a hostile program says.
type memory interface {
	read(addr uint64, b []byte) unix.Errno
	write(addr uint64, b []byte) unix.Errno
}

// frame is a caught call in the terms of its architecture.
type frame struct {
	row     *call.Call
	compat  bool      // i386
	args    [6]uint64 // as the kernel takes them
	outSize int       // OutLen of the request
}

func newFrame(row *call.Call, n *sys.Notification) *frame {
	f := &frame{row: row, compat: n.Arch == unix.AUDIT_ARCH_I386, args: n.Args}
	if f.compat { // int 0x80 in a 64-bit program leaves what it likes above
		for i := range f.args {
			f.args[i] &= 1<<32 - 1
		}
	}
	return f
}

// request is the call without its caller and origin, with what it reads of m.
func (f *frame) request(m memory) (*call.Request, unix.Errno) {
	r := &call.Request{Nr: f.row.Nr, Args: f.args}
	if f.compat && r.Nr == call.SchedGetaffinity && r.Args[1]&7 == 4 && r.Args[1] < call.MaxMemory {
		r.Args[1] += 4 // the executing kernel has masks of whole 8 bytes
	}
	for _, p := range f.row.Pieces(&r.Args, call.In) {
		b, e := f.read(m, p)
		if e != 0 {
			return nil, e
		}
		r.In = append(r.In, b...)
	}
	for _, p := range f.row.Pieces(&r.Args, call.Out) {
		r.OutLen += uint32(p.Len)
	}
	f.outSize = int(r.OutLen)
	for _, p := range f.row.Mem {
		if p.Dir != 0 && r.Args[p.Arg] != 0 {
			r.Args[p.Arg] = 1
		}
	}
	return r, 0
}

// The sizes of struct sched_attr (sched_copy_attr in kernel/sched/syscalls.c): that
// of its first version, which 0 means too, and the longest that is read.
const (
	firstAttr   = 48
	longestAttr = 4096
)

func (f *frame) read(m memory, p call.Piece) ([]byte, unix.Errno) {
	addr := f.args[p.Arg]
	if p.Layout == call.Attr {
		var head [4]byte
		if e := m.read(addr, head[:]); e != 0 {
			return nil, e
		}
		switch p.Len = int(binary.LittleEndian.Uint32(head[:])); {
		case p.Len == 0:
			p.Len = firstAttr
		case p.Len < firstAttr || p.Len > longestAttr:
			return head[:], 0 // refused by its length
		}
		b := make([]byte, p.Len)
		e := m.read(addr, b)
		copy(b, head[:]) // the length that b has, whatever is there now
		return b, e
	}
	b := make([]byte, p.Len)
	if e := m.read(addr, b); e != 0 {
		return nil, e
	}
	if f.compat && p.Layout == call.Siginfo {
		b = siginfoFrom32(b)
	}
	return b, 0
}

// write puts what the call wrote into m.
func (f *frame) write(m memory, out []byte) unix.Errno {
	out = out[:min(len(out), f.outSize)]
	for _, p := range f.row.Pieces(&f.args, call.Out) {
		b := out[:min(p.Len, len(out))]
		out = out[len(b):]
		if f.compat && p.Layout == call.Timespec {
			if len(b) < p.Len {
				return 0
			}
			b = timespecTo32(b)
		}
		if len(b) == 0 {
			return 0
		}
		if e := m.write(f.args[p.Arg], b); e != 0 {
			return e
		}
	}
	return 0
}

// result is the value of the call as the caller's architecture has it.
func (f *frame) result(ret int64) int64 {
	if f.compat && f.row.Nr == call.SchedGetaffinity {
		return min(ret, int64(f.args[1]))
	}
	return ret
}

// siginfoFrom32 makes a siginfo_t of x86-64 from one of i386, as
// post_copy_siginfo_from_user32 in kernel/signal.c does for what a program may send
// to another: codes below 0. The union lies 4 bytes further on.
func siginfoFrom32(b []byte) []byte {
	const union32, union64, codeSIGIO = 12, 16, -5
	s := make([]byte, call.SiginfoSize)
	copy(s, b[:union32])
	if code := int32(binary.LittleEndian.Uint32(b[8:])); code == codeSIGIO { // si_band, a long, and si_fd
		band := int32(binary.LittleEndian.Uint32(b[union32:]))
		binary.LittleEndian.PutUint64(s[union64:], uint64(int64(band)))
		copy(s[union64+8:union64+12], b[union32+4:])
		return s
	}
	copy(s[union64:union64+12], b[union32:]) // si_pid, si_uid, si_value as far as it goes
	return s
}

// timespecTo32 makes a struct old_timespec32 from a struct timespec of x86-64.
func timespecTo32(b []byte) []byte {
	return append(append([]byte(nil), b[:4]...), b[8:12]...)
}
