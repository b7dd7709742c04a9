package ptrace

import (
	"golang.org/x/sys/unix"

	"ssi/vproc/call"
)

// supported tells whether this machine's registers are known.
const supported = true

// registers are those of a stopped thread.
type registers struct{ r unix.PtraceRegs }

// callInstruction is SYSCALL, and callSize its length.
const (
	callInstruction = "\x0f\x05"
	callSize        = 2
)

// codeOf64 is the segment of 64-bit code (__USER_CS of the kernel).
const codeOf64 = 0x33

func (g *registers) load(tid int) error  { return unix.PtraceGetRegs(tid, &g.r) }
func (g *registers) store(tid int) error { return unix.PtraceSetRegs(tid, &g.r) }

// result is what the call has returned: -4095 to -1 are errors.
func (g *registers) result() int64 { return int64(g.r.Rax) }

// returnsFrom tells whether the thread is on its way out of r.
func (g *registers) returnsFrom(r *call.Request, nr uint64) bool {
	return g.r.Cs == codeOf64 && g.r.Orig_rax == nr &&
		[4]uint64{g.r.Rdi, g.r.Rsi, g.r.Rdx, g.r.R10} == [4]uint64(r.Args[:4])
}

// returning is g with another result. It is not taken for a call to be restarted.
func (g *registers) returning(v int64) *registers {
	next := *g
	next.r.Rax, next.r.Orig_rax = uint64(v), 1<<64-1
	return &next
}

// calling is g, which is at the end of a call, before another one (syscall(2)).
func (g *registers) calling(nr uint64, args [5]uint64) *registers {
	next := g.returning(int64(nr))
	r := &next.r
	r.Rip -= callSize
	r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8 = args[0], args[1], args[2], args[3], args[4]
	return next
}

// entered tells whether the thread that was at before is in the call nr, and not in
// one of a signal handler.
func (g *registers) entered(nr uint64, before *registers) bool {
	return g.r.Orig_rax == nr && g.r.Rip == before.r.Rip && g.r.Rsp == before.r.Rsp
}
