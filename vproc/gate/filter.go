package gate

import (
	"cmp"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
	"ssi/vproc/call"
)

// Offsets in struct seccomp_data, little-endian; see seccomp(2).
const (
	offNr   = 0
	offArch = 4
	offArgs = 16
)

// x32 marks the numbers of the x32 ABI, __X32_SYSCALL_BIT.
const x32 = 0x40000000

// negative is the lowest 32-bit value that is a negative int.
const negative = 0x80000000

// Filter is the seccomp program for the processes of a node: calls of the table
// that are not the kernel's alone are notified, those of the x32 ABI are refused
// with ENOSYS, all others allowed.
//
// The number is looked up by halving, and arguments are loaded only after it was
// found: what the kernel can see to be allowed whatever the arguments are, it
// allows from then on without running the program (seccomp_cache_prepare in
// kernel/seccomp.c).
func Filter(node id.Node) ([]unix.SockFilter, error) {
	if !node.Valid() {
		return nil, fmt.Errorf("filter: no window for node %d", node)
	}
	first, end := node.Window()
	b := builder{first: uint32(first), end: uint32(end)}
	x64 := b.lookup(func(c *call.Call) int { return c.X64 })
	i386 := b.lookup(func(c *call.Call) int { return c.I386 })
	var prog []unix.SockFilter
	prog = append(prog, load(offArch))
	prog = append(prog, jumpUnless(jeq, unix.AUDIT_ARCH_X86_64, 3+len(x64))...)
	prog = append(prog, load(offNr))
	prog = append(prog, unix.SockFilter{Code: jge, Jt: 0, Jf: 1, K: x32}, ret(unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS)))
	prog = append(prog, x64...)
	prog = append(prog, jumpUnless(jeq, unix.AUDIT_ARCH_I386, 1+len(i386))...)
	prog = append(prog, load(offNr))
	prog = append(prog, i386...)
	prog = append(prog, ret(unix.SECCOMP_RET_ALLOW))
	if len(prog) > unix.BPF_MAXINSNS {
		return nil, fmt.Errorf("filter: %d instructions, the kernel takes %d", len(prog), unix.BPF_MAXINSNS)
	}
	return prog, nil
}

// The instructions in use, of linux/bpf_common.h.
const (
	jeq = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	jge = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
)

func load(offset int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: uint32(offset)}
}

func ret(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }

// jumpUnless skips the next n instructions if the test fails. A conditional jump
// reaches 255 instructions, the other kind all.
func jumpUnless(test uint16, k uint32, n int) []unix.SockFilter {
	return []unix.SockFilter{
		{Code: test, Jt: 1, Jf: 0, K: k},
		{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(n)},
	}
}

// builder makes the programs of one node.
type builder struct{ first, end uint32 }

type rule struct {
	nr   uint32
	call call.Call
}

// lookup is the program for one architecture; every way through it ends in a
// return. The accumulator holds the number.
func (b *builder) lookup(number func(*call.Call) int) []unix.SockFilter {
	var rules []rule
	for _, c := range call.Table() {
		if n := number(&c); n >= 0 {
			rules = append(rules, rule{uint32(n), c})
		}
	}
	slices.SortFunc(rules, func(x, y rule) int { return cmp.Compare(x.nr, y.nr) })
	return b.tree(rules)
}

func (b *builder) tree(rules []rule) []unix.SockFilter {
	if len(rules) == 1 {
		check := b.check(&rules[0].call)
		return append(append(jumpUnless(jeq, rules[0].nr, len(check)), check...), ret(unix.SECCOMP_RET_ALLOW))
	}
	mid := len(rules) / 2
	low, high := b.tree(rules[:mid]), b.tree(rules[mid:])
	return append(append(jumpUnless(jge, rules[mid].nr, len(high)), high...), low...)
}

// check is the program for a call whose number has matched: it returns.
func (b *builder) check(c *call.Call) []unix.SockFilter {
	var p part
	switch c.Class {
	case call.Process:
		b.foreign(&p, c.PID)
	case call.Group:
		p.load(c.PID)
		p.test(jeq, 0, notify)
		b.foreign(&p, c.PID)
	case call.Positive:
		p.load(c.PID)
		p.test(jge, negative, allow)
		b.foreign(&p, c.PID)
	case call.Pair:
		b.foreign(&p, c.PID)
		b.foreign(&p, c.PID2)
	case call.Named:
		p.load(c.PID)
		p.testNot(jeq, 0, notify)
	case call.Which:
		p.load(0)
		p.testNot(jeq, uint32(c.Self), notify)
		p.load(c.PID)
		p.testNot(jeq, 0, notify)
	case call.Always:
		p.always = true
	}
	if c.Signal > 0 {
		p.load(c.Signal)
		p.test(jeq, uint32(unix.SIGSTOP), notify)
		p.test(jeq, uint32(unix.SIGCONT), notify)
	}
	return p.finish()
}

// foreign notifies if argument arg is a foreign PID: not 0, not in the window, and
// not 2 to the end of window 0.
func (b *builder) foreign(p *part, arg int) {
	zeroEnd := uint32(1) << id.PIDShift
	p.load(arg)
	p.test(jeq, 1, notify)
	p.test(jge, b.end, notify)
	p.test(jge, b.first, next)
	p.test(jge, zeroEnd, notify)
}

// Where a test of a part leads.
type goal uint8

const (
	allow  goal = iota
	notify      // tell the daemon
	next        // to the next foreign, or the end: allowed so far
)

// part is the program of one rule. It ends with "allow" and then "notify".
type part struct {
	code   []unix.SockFilter
	jumps  []jump
	always bool
}

type jump struct {
	at  int
	to  goal
	not bool // taken if the test fails
}

func (p *part) load(arg int) { p.code = append(p.code, load(offArgs+8*arg)) }

// test goes to to if the test holds.
func (p *part) test(op uint16, k uint32, to goal) {
	p.jumps = append(p.jumps, jump{at: len(p.code), to: to})
	p.code = append(p.code, unix.SockFilter{Code: op, K: k})
}

// testNot goes to to if the test fails.
func (p *part) testNot(op uint16, k uint32, to goal) {
	p.test(op, k, to)
	p.jumps[len(p.jumps)-1].not = true
}

func (p *part) finish() []unix.SockFilter {
	if p.always {
		return []unix.SockFilter{ret(unix.SECCOMP_RET_USER_NOTIF)}
	}
	ends := [...]int{allow: len(p.code), notify: len(p.code) + 1}
	for _, j := range p.jumps {
		to := ends[allow]
		switch j.to {
		case notify:
			to = ends[notify]
		case next:
			for to = j.at; to < len(p.code) && p.code[to].Code&0x07 != unix.BPF_LD; to++ {
			}
		}
		distance := uint8(to - j.at - 1)
		if j.not {
			p.code[j.at].Jf = distance
		} else {
			p.code[j.at].Jt = distance
		}
	}
	return append(p.code, ret(unix.SECCOMP_RET_ALLOW), ret(unix.SECCOMP_RET_USER_NOTIF))
}
