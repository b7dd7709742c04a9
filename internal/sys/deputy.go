package sys

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MaxCalls is how many calls one deputy makes.
const MaxCalls = 512

// A deputy that does not end is continued every deputyPatience (nanoseconds), in
// case it was stopped, and killed after deputyTries of these.
const (
	deputyPatience = 50e6
	deputyTries    = 200
)

// NotMade is the result of a call that was not made, or of which it is not known.
const NotMade = -1 << 62

// ErrDeputyLost tells that a deputy was killed before it had made all calls. Those
// whose Ret is NotMade may have been made.
var ErrDeputyLost = errors.New("the process that acts for the caller was killed")

// Identity is in whose name a deputy acts.
type Identity struct {
	Self      bool   // the identity of this process: only PID counts
	PID       int    // what the deputy is known as, if no process has this number; 0: any
	UID, EUID uint32 // real and effective
	GID, EGID uint32
	Groups    []uint32
	Caps      uint64 // effective capabilities; this process must have them
}

// Memory is what an argument of a Call points to.
type Memory struct {
	Arg  int
	Data []byte // copied in before the call and out after it
	// Fixed tells that Data does not belong to Go (mmap(2)): it is used as it is, so
	// that what the kernel writes is there also if this process dies meanwhile.
	Fixed bool
}

// Call is a system call: its number, its arguments, and what these point to.
type Call struct {
	Nr   uintptr
	Args [6]uint64
	Mem  []Memory
	Ret  int64 // what the kernel said: an error number if it is in -4095..-1, or NotMade
	// Kept, if set, gets Ret as soon as the call is made, also if this process dies
	// meanwhile: 8 aligned bytes that do not belong to Go.
	Kept []byte
}

// LoadKept reads what StoreKept or a deputy wrote to 8 aligned bytes (Call.Kept).
func LoadKept(b []byte) int64 {
	_ = b[7]
	return atomic.LoadInt64((*int64)(unsafe.Pointer(&b[0])))
}

// StoreKept writes 8 aligned bytes at once: nobody, not even who finds them after
// this process was killed, sees a part.
func StoreKept(b []byte, v int64) {
	_ = b[7]
	atomic.StoreInt64((*int64)(unsafe.Pointer(&b[0])), v)
}

// Errno is the error of the call, or 0.
func (c *Call) Errno() unix.Errno {
	if c.Ret < 0 && c.Ret >= -4095 {
		return unix.Errno(-c.Ret)
	}
	return 0
}

// op is one step of the script of a deputy. deputy_*.s knows its layout.
type op struct {
	nr   uint64
	args [6]uint64
	ret  *int64
	must uint64 // 1: an error ends the deputy
}

// cloneArgs is struct clone_args, see clone3(2), without its last field.
type cloneArgs struct {
	flags, _, childTID, _, _, _, _, _, setTID, setTIDSize uint64
}

// identitySteps is how many steps take an identity.
const identitySteps = 5

// job is the memory of one deputy: on the heap, where it does not move.
type job struct {
	clone  cloneArgs
	mask   [2]uint64 // all signals; those that were blocked before
	alive  uint32    // the kernel sets it to 0 and wakes us when the deputy is gone
	tid    int32
	header unix.CapUserHeader
	caps   [2]unix.CapUserData
	groups []uint32
	taken  [identitySteps]int64
	rets   []int64
	ops    []op
	mem    []byte
}

// deputyClone blocks all signals, makes a process by clone3(2) and unblocks them.
// The new process shares the memory of this one, has no stack and needs none: it
// makes the n calls of ops and ends. It returns the process's PID or, below 0, an
// error number.
func deputyClone(clone *cloneArgs, size uintptr, ops *op, n uintptr, mask *[2]uint64) int64

// Deputize makes calls, one after the other, in a process of its own that has the
// identity who, and waits for its end. So the kernel judges the caller: real and
// effective user, groups, capabilities; si_pid and si_uid of a signal are the
// caller's; and what the caller may do to a process of its own user does no harm
// to this one, as it would to a thread.
//
// The deputy shares memory and files with this process and does nothing but the
// calls. It blocks all signals; if it is stopped it is continued. It needs
// CAP_SETUID, CAP_SETGID and CAP_SETPCAP, and CAP_CHECKPOINT_RESTORE for a PID.
//
// An error tells that no call was made, unless it is ErrDeputyLost.
func Deputize(who Identity, calls []Call) error {
	const unchanged = 1<<32 - 1 // -1 of setresuid(2) and setresgid(2)
	switch {
	case len(calls) == 0 || len(calls) > MaxCalls:
		return fmt.Errorf("%d calls for a deputy: %w", len(calls), unix.E2BIG)
	case who.Self:
	case who.UID == unchanged || who.EUID == unchanged || who.GID == unchanged || who.EGID == unchanged || len(who.Groups) > maxGroups:
		return fmt.Errorf("the identity of a deputy: %w", unix.EINVAL)
	}
	j := newJob(len(calls))
	if !who.Self {
		j.become(who)
	}
	if err := j.add(calls); err != nil {
		return err
	}
	if err := j.run(who.PID); err != nil {
		return err
	}
	err := j.results(calls)
	for i := range len(j.ops) - len(calls) {
		if e := atomic.LoadInt64(&j.taken[i]); e < 0 && e != NotMade {
			return fmt.Errorf("take the identity of user %d: %w", who.EUID, unix.Errno(-e))
		}
	}
	return err
}

// Make makes one call on this thread, with the identity of this process.
func Make(c *Call) error {
	j := newJob(1)
	calls := [...]Call{*c}
	if err := j.add(calls[:]); err != nil {
		return err
	}
	o := &j.ops[0]
	a := &o.args
	r, _, e := unix.Syscall6(uintptr(o.nr), uintptr(a[0]), uintptr(a[1]), uintptr(a[2]), uintptr(a[3]), uintptr(a[4]), uintptr(a[5]))
	if e != 0 {
		*o.ret = -int64(e)
	} else {
		*o.ret = int64(r)
	}
	err := j.results(calls[:])
	c.Ret = calls[0].Ret
	return err
}

func newJob(calls int) *job {
	return &job{ops: make([]op, 0, identitySteps+calls), rets: make([]int64, calls)}
}

// become adds the steps that take an identity: groups first, capabilities last.
// The kernel takes them away with user 0 (capabilities(7)), unless KEEPCAPS is
// set; then the permitted ones stay.
func (j *job) become(who Identity) {
	step := func(nr uintptr, args ...uint64) {
		o := op{nr: uint64(nr), ret: &j.taken[len(j.ops)], must: 1}
		*o.ret = NotMade
		copy(o.args[:], args)
		j.ops = append(j.ops, o)
	}
	j.groups = append(make([]uint32, 0, len(who.Groups)+1), who.Groups...)
	step(unix.SYS_SETGROUPS, uint64(len(j.groups)), uint64(uintptr(unsafe.Pointer(unsafe.SliceData(j.groups)))))
	step(unix.SYS_SETRESGID, uint64(who.GID), uint64(who.EGID), uint64(who.EGID))
	step(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1)
	step(unix.SYS_SETRESUID, uint64(who.UID), uint64(who.EUID), uint64(who.EUID))
	j.header.Version = unix.LINUX_CAPABILITY_VERSION_3
	for i := range j.caps {
		part := uint32(who.Caps >> (32 * i))
		j.caps[i] = unix.CapUserData{Effective: part, Permitted: part}
	}
	step(unix.SYS_CAPSET, uint64(uintptr(unsafe.Pointer(&j.header))), uint64(uintptr(unsafe.Pointer(&j.caps[0]))))
}

// add adds the calls, with copies of their memory.
func (j *job) add(calls []Call) error {
	size := 0
	for i := range calls {
		for _, m := range calls[i].Mem {
			size += (len(m.Data) + 7) &^ 7
		}
	}
	words := make([]uint64, size/8+1) // so that all memory is aligned
	j.mem = unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(words)*8)
	at := 0
	for i := range calls {
		c := &calls[i]
		o := op{nr: uint64(c.Nr), args: c.Args, ret: &j.rets[i]}
		if len(c.Kept) >= 8 {
			o.ret = (*int64)(unsafe.Pointer(&c.Kept[0]))
		}
		atomic.StoreInt64(o.ret, NotMade)
		for _, m := range c.Mem {
			if m.Arg < 0 || m.Arg >= len(o.args) {
				return fmt.Errorf("memory of argument %d of a call: %w", m.Arg, unix.EINVAL)
			}
			p := unsafe.Pointer(unsafe.SliceData(m.Data))
			if !m.Fixed {
				copy(j.mem[at:], m.Data)
				p = unsafe.Pointer(&j.mem[at])
				at += (len(m.Data) + 7) &^ 7
			}
			o.args[m.Arg] = uint64(uintptr(p))
		}
		j.ops = append(j.ops, o)
	}
	return nil
}

// run makes the deputy and waits for its end. It sleeps at once: a deputy mostly begins
// on the processor of who waits for it, so looking again and again holds it up.
func (j *job) run(pid int) error {
	j.mask[0] = ^uint64(0)
	j.alive = 1
	j.clone = cloneArgs{
		flags: unix.CLONE_VM | unix.CLONE_FILES | unix.CLONE_FS | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_IO |
			unix.CLONE_CHILD_CLEARTID,
		childTID: uint64(uintptr(unsafe.Pointer(&j.alive))),
	}
	if pid > 0 {
		j.tid = int32(pid)
		j.clone.setTID, j.clone.setTIDSize = uint64(uintptr(unsafe.Pointer(&j.tid))), 1
	}
	r := deputyClone(&j.clone, unsafe.Sizeof(j.clone), &j.ops[0], uintptr(len(j.ops)), &j.mask)
	if pid > 0 && r == -int64(unix.EEXIST) {
		return j.run(0)
	}
	if r < 0 {
		return fmt.Errorf("clone3: %w", unix.Errno(-r))
	}
	for try := 0; atomic.LoadUint32(&j.alive) != 0; {
		patience := unix.Timespec{Nsec: deputyPatience}
		_, _, e := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&j.alive)), futexWait, 1, uintptr(unsafe.Pointer(&patience)), 0, 0)
		if e != unix.ETIMEDOUT {
			continue
		}
		sig := unix.SIGCONT
		if try++; try >= deputyTries {
			sig = unix.SIGKILL
		}
		_ = unix.Kill(int(r), sig) // it is not reaped yet: the number is its own
	}
	for {
		if _, err := unix.Wait4(int(r), nil, unix.WALL, nil); !errors.Is(err, unix.EINTR) {
			break // it is a child of this process that nobody else waits for
		}
	}
	runtime.KeepAlive(j)
	return nil
}

// futexWait is FUTEX_WAIT of futex(2): the kernel's wake-up at the end of a
// process is of the shared kind.
const futexWait = 0

// results copies what the kernel wrote.
func (j *job) results(calls []Call) error {
	var err error
	at := 0
	first := len(j.ops) - len(calls)
	for i := range calls {
		c := &calls[i]
		c.Ret = atomic.LoadInt64(j.ops[first+i].ret)
		if c.Ret == NotMade {
			err = ErrDeputyLost
		}
		for _, m := range c.Mem {
			if !m.Fixed {
				copy(m.Data, j.mem[at:])
				at += (len(m.Data) + 7) &^ 7
			}
		}
	}
	runtime.KeepAlive(j)
	return err
}
