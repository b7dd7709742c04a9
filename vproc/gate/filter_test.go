package gate

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
	"ssi/vproc/call"
)

// data is struct seccomp_data.
type data struct {
	nr   uint32
	arch uint32
	args [6]uint64
}

// emulator runs a filter as the kernel does.
type emulator []unix.SockFilter

func newEmulator(t testing.TB, node id.Node) emulator {
	t.Helper()
	prog, err := Filter(node)
	if err != nil {
		t.Fatal(err)
	}
	return prog
}

// run returns what the filter does with d, and whether it looked at arguments: if
// not, the kernel remembers the answer (seccomp_is_const_allow).
func (e emulator) run(t testing.TB, d data) (action uint32, looked bool) {
	t.Helper()
	var acc uint32
	for pc := 0; pc < len(e); pc++ {
		in := e[pc]
		jump := func(holds bool) {
			if holds {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		}
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			switch i := (in.K - offArgs) / 8; {
			case in.K == offNr:
				acc = d.nr
			case in.K == offArch:
				acc = d.arch
			case in.K < offArgs || i > 5 || in.K%8 != 0:
				t.Fatalf("instruction %d loads from %d", pc, in.K)
			default:
				acc, looked = uint32(d.args[i]), true
			}
		case unix.BPF_RET | unix.BPF_K:
			return in.K, looked
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(in.K)
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			jump(acc == in.K)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			jump(acc >= in.K)
		default:
			t.Fatalf("instruction %d has code %#x", pc, in.Code)
		}
	}
	t.Fatal("the program has no end")
	return 0, false
}

// foreign is the rule in words: what is not the kernel's alone.
func foreign(node id.Node, v uint64) bool {
	p := int64(int32(v))
	first, end := node.Window()
	own := p >= int64(first) && p < int64(end)
	window0 := p == 0 || p >= 2 && p < 1<<id.PIDShift
	return !own && !window0
}

// isCaught is what the table says about a call.
func isCaught(node id.Node, c *call.Call, args *[6]uint64) bool {
	f := foreign(node, args[c.PID])
	if sig := uint32(args[c.Signal]); c.Signal > 0 && (sig == 18 || sig == 19) { // SIGCONT, SIGSTOP
		return true
	}
	switch c.Class {
	case call.Group:
		return f || uint32(args[c.PID]) == 0
	case call.Positive:
		return f && int32(args[c.PID]) > 0
	case call.Pair:
		return f || foreign(node, args[c.PID2])
	case call.Named:
		return uint32(args[c.PID]) != 0
	case call.Which:
		return uint32(args[0]) != uint32(c.Self) || uint32(args[c.PID]) != 0
	case call.Always:
		return true
	}
	return f
}

// edges are the values around which something changes, as an int and with rubbish
// above it.
func edges(node id.Node) []uint64 {
	first, end := node.Window()
	var all []uint64
	for _, v := range []int64{0, 1, 2, 3, 300, 32767, 32768, 1 << 16, int64(first), int64(end), 4194303, 4194304, 1<<31 - 1, -1 << 31, -1, -2, -300, -32768, -int64(first), -int64(end)} {
		for _, d := range []int64{-1, 0, 1} {
			all = append(all, uint64(uint32(v+d)), uint64(v+d), uint64(uint32(v+d))|1<<32)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// cases calls f with every row on every architecture, with all values in the
// arguments that its class looks at.
func cases(node id.Node, f func(c *call.Call, d data)) {
	for _, c := range call.Table() {
		for _, a := range []struct {
			nr   int
			arch uint32
		}{{c.X64, unix.AUDIT_ARCH_X86_64}, {c.I386, unix.AUDIT_ARCH_I386}} {
			if a.nr < 0 {
				continue
			}
			d := data{nr: uint32(a.nr), arch: a.arch, args: [6]uint64{7, 7, 7, 7, 7, 7}}
			for _, v := range edges(node) {
				d.args[c.PID] = v
				switch c.Class {
				case call.Pair:
					for _, w := range edges(node) {
						d.args[c.PID2] = w
						signals(&c, d, f)
					}
				case call.Which:
					for _, w := range []uint64{0, 1, 2, 3, 4, 1 << 32, 1<<32 | 1, 1<<64 - 1} {
						d.args[0] = w
						f(&c, d)
					}
				default:
					signals(&c, d, f)
				}
			}
		}
	}
}

// signals calls f with signals, if the row has one.
func signals(c *call.Call, d data, f func(c *call.Call, d data)) {
	if c.Signal == 0 {
		f(c, d)
		return
	}
	for _, sig := range []uint64{0, 9, 15, 17, 18, 19, 20, 1<<32 | 18, 1<<32 | 19, 1<<31 | 19, 1<<64 - 1} {
		d.args[c.Signal] = sig
		f(c, d)
	}
}

// What programs do all the time stays in the kernel, and what may mean a process that
// lives elsewhere does not. This is the rule for single calls, in numbers of node 3.
func TestFilterOfLocalProcesses(t *testing.T) {
	const node, p, q, zero = 3, 3<<id.PIDShift + 5, 3<<id.PIDShift + 6, 300
	e := newEmulator(t, node)
	const stop, cont = uint64(unix.SIGSTOP), uint64(unix.SIGCONT)
	for _, c := range []struct {
		name   string
		nr     call.Nr
		args   [6]uint64
		caught bool
	}{
		{"kill", call.Kill, [6]uint64{p, 15}, false},
		{"kill -9", call.Kill, [6]uint64{p, 9}, false},
		{"kill -0", call.Kill, [6]uint64{p, 0}, false},
		{"kill -TSTP", call.Kill, [6]uint64{p, uint64(unix.SIGTSTP)}, false},
		{"kill -STOP", call.Kill, [6]uint64{p, stop}, true},
		{"kill -CONT", call.Kill, [6]uint64{p, cont}, true},
		{"kill -CONT, with rubbish", call.Kill, [6]uint64{p, cont | 7<<32}, true},
		{"kill -CONT of window 0", call.Kill, [6]uint64{zero, cont}, true},
		{"kill of a group", call.Kill, [6]uint64{1<<64 - p, 15}, true},
		{"raise", call.Tgkill, [6]uint64{p, p, 6}, false},
		{"pthread_kill", call.Tgkill, [6]uint64{p, q, 23}, false},
		{"raise(SIGSTOP)", call.Tgkill, [6]uint64{p, p, stop}, true},
		{"a thread elsewhere", call.Tgkill, [6]uint64{p, 2<<id.PIDShift + 5, 6}, true},
		{"a thread elsewhere, with a value", call.RtTgsigqueueinfo, [6]uint64{p, 2<<id.PIDShift + 5, 6}, true},
		{"tkill", call.Tkill, [6]uint64{p, 6}, false},
		{"tkill -STOP", call.Tkill, [6]uint64{p, stop}, true},
		{"sigqueue", call.RtSigqueueinfo, [6]uint64{p, 40, 7}, false},
		{"sigqueue of SIGCONT", call.RtSigqueueinfo, [6]uint64{p, cont, 7}, true},
		{"pthread_sigqueue", call.RtTgsigqueueinfo, [6]uint64{p, q, 40}, false},
		{"getpgid", call.Getpgid, [6]uint64{p}, false},
		{"setpgid", call.Setpgid, [6]uint64{p, q}, false},
		{"pidfd_open", call.PidfdOpen, [6]uint64{p}, false},
		{"ptrace", call.Ptrace, [6]uint64{16, p}, false},
		{"getrlimit", call.Prlimit64, [6]uint64{0, 7, 0, 1}, false},
		{"prlimit", call.Prlimit64, [6]uint64{p, 7, 0, 1}, true},
		{"prlimit of window 0", call.Prlimit64, [6]uint64{zero, 7, 0, 1}, true},
		{"own affinity", call.SchedGetaffinity, [6]uint64{0, 128, 1}, false},
		{"own affinity, with rubbish", call.SchedGetaffinity, [6]uint64{1 << 32, 128, 1}, false},
		{"affinity", call.SchedSetaffinity, [6]uint64{p, 128, 1}, false},
		{"scheduler", call.SchedSetscheduler, [6]uint64{p, 0, 1}, false},
		{"attributes", call.SchedGetattr, [6]uint64{p, 1, 48}, false},
		{"own nice", call.Setpriority, [6]uint64{0, 0, 5}, false},
		{"nice", call.Setpriority, [6]uint64{0, p, 5}, true},
		{"nice of a group", call.Getpriority, [6]uint64{1, 0}, true},
		{"own ioprio", call.IoprioGet, [6]uint64{1, 0}, false},
		{"ioprio", call.IoprioSet, [6]uint64{1, p, 5}, true},
	} {
		row, _ := c.nr.Row()
		for arch, nr := range map[uint32]int{unix.AUDIT_ARCH_X86_64: row.X64, unix.AUDIT_ARCH_I386: row.I386} {
			got, _ := e.run(t, data{nr: uint32(nr), arch: arch, args: c.args})
			if (got == unix.SECCOMP_RET_USER_NOTIF) != c.caught {
				t.Errorf("%s on %#x: %#x, want it caught: %v", c.name, arch, got, c.caught)
			}
		}
	}
}

func TestFilterAgainstTable(t *testing.T) {
	for _, node := range []id.Node{1, 2, 3, 126, 127} {
		e := newEmulator(t, node)
		n := 0
		cases(node, func(c *call.Call, d data) {
			n++
			want := uint32(unix.SECCOMP_RET_ALLOW)
			if isCaught(node, c, &d.args) {
				want = unix.SECCOMP_RET_USER_NOTIF
			}
			if got, _ := e.run(t, d); got != want {
				t.Errorf("node %d: %s %x of %x: %x, want %x", node, c.Name, d.args, d.arch, got, want)
			}
		})
		if n < 10_000 {
			t.Errorf("only %d cases", n)
		}
	}
}

// What the table does not name is left alone, whatever the arguments; x32 is
// refused, and other architectures are no business of ours.
func TestFilterOfOtherCalls(t *testing.T) {
	const node = 3
	e := newEmulator(t, node)
	x64, i386 := map[uint32]bool{}, map[uint32]bool{}
	for _, c := range call.Table() {
		x64[uint32(c.X64)], i386[uint32(c.I386)] = true, true
	}
	numbers := []uint32{1<<30 - 1, 1 << 31, 1<<32 - 1}
	for nr := range uint32(call.ClusterBase + 300) {
		numbers = append(numbers, nr)
	}
	for _, nr := range numbers {
		for _, v := range []uint64{0, 1, 1 << 17, 1<<64 - 1} {
			args := [6]uint64{v, v, v, v, v, v}
			want := uint32(unix.SECCOMP_RET_ALLOW)
			if nr >= x32 {
				want = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
			}
			if got, _ := e.run(t, data{nr, unix.AUDIT_ARCH_X86_64, args}); !x64[nr] && got != want {
				t.Errorf("call %d: %x, want %x", nr, got, want)
			}
			if got, _ := e.run(t, data{nr | x32, unix.AUDIT_ARCH_X86_64, args}); got != unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS) {
				t.Errorf("x32 call %d: %x", nr, got)
			}
			if got, _ := e.run(t, data{nr, unix.AUDIT_ARCH_I386, args}); !i386[nr] && got != unix.SECCOMP_RET_ALLOW {
				t.Errorf("i386 call %d: %x", nr, got)
			}
			if got, _ := e.run(t, data{nr, unix.AUDIT_ARCH_AARCH64, args}); got != unix.SECCOMP_RET_ALLOW {
				t.Errorf("arm64 call %d: %x", nr, got)
			}
		}
	}
}

// A call that is not in the table is decided without a look at its arguments, or
// the kernel could not remember that it is allowed.
func TestFilterLoadsLate(t *testing.T) {
	e := newEmulator(t, 5)
	hooked := map[string]bool{}
	for _, c := range call.Table() {
		hooked[fmt.Sprint(unix.AUDIT_ARCH_X86_64, c.X64)], hooked[fmt.Sprint(unix.AUDIT_ARCH_I386, c.I386)] = true, true
	}
	for _, arch := range []uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386} {
		for nr := range uint32(1000) {
			if got, looked := e.run(t, data{nr: nr, arch: arch}); !hooked[fmt.Sprint(arch, nr)] && (looked || got != unix.SECCOMP_RET_ALLOW) {
				t.Errorf("call %d of %x is not always allowed: %x, %v", nr, arch, got, looked)
			}
		}
	}
}

func TestFilterNeedsANode(t *testing.T) {
	for _, node := range []id.Node{0, id.MaxNode + 1} {
		if _, err := Filter(node); err == nil {
			t.Errorf("a filter for node %d", node)
		}
	}
	prog, err := Filter(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d instructions", len(prog))
}

func FuzzFilter(f *testing.F) {
	f.Add(uint32(62), uint32(unix.AUDIT_ARCH_X86_64), uint64(1), uint64(2), uint64(3))
	const node = 3
	e := newEmulator(f, node)
	f.Fuzz(func(t *testing.T, nr, arch uint32, a, b, c uint64) {
		d := data{nr, arch, [6]uint64{a, b, c}}
		got, _ := e.run(t, d)
		for _, row := range call.Table() {
			if arch == unix.AUDIT_ARCH_X86_64 && int64(nr) == int64(row.X64) || arch == unix.AUDIT_ARCH_I386 && int64(nr) == int64(row.I386) {
				if want := isCaught(node, &row, &d.args); want != (got == unix.SECCOMP_RET_USER_NOTIF) {
					t.Errorf("%s %x: %x", row.Name, d.args, got)
				}
			}
		}
	})
}
