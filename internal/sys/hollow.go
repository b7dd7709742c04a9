package sys

import (
	"encoding/binary"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A hollow process stands for one that lives elsewhere, or is to become a program:
// a few KiB, asleep, its program is Hollow. It takes orders, which are system
// calls, from memory that it shares with whoever made it:
//
//	start	map file 0 (ArenaSize bytes) at ArenaAddr; block all signals; done = seq
//	loop	wait for SIGUSR1 or SIGCHLD
//		of each child that ended, stopped or went on, write a Report to file 1
//		if target is its PID and seq is another than before: carry out the orders; done = seq
//
// The first order is at ArenaOrders; ArenaData and what follows is free for what
// their arguments point to. One set of orders is under way at a time: who gives
// them sees to that.
const (
	ArenaAddr   = 0x20000000
	ArenaSize   = 0x400000
	ArenaOrders = 0x1000
	ArenaData   = 0x10000

	// MaxOrders is how many orders fit in.
	MaxOrders = (ArenaData - ArenaOrders) / orderSize

	targetAt, seqAt, doneAt, countAt = 0, 8, 12, 16
	orderSize                        = 80
	resultAt                         = 64
)

// Order is one system call of a hollow process.
type Order struct {
	Nr    uintptr
	Args  [6]uint64
	Flags uint64
	// After makes it conditional: it is carried out only if the last result was
	// this error. 0: always.
	After unix.Errno
}

// The flags of an Order.
const (
	// Forks: the call makes a process, which goes on with the orders; the old one
	// is done with them. If no process was made, done is set.
	Forks = 1 << 0
	// Needed: if the call fails, the orders that follow are not carried out.
	Needed = 1 << 1
)

// notRun is the result of an order that was not carried out.
const notRun = -1 << 32

// Arena is the memory shared with hollow processes.
type Arena []byte

func (a Arena) word(at int) *uint32 { return (*uint32)(unsafe.Pointer(&a[at])) }

// Reset makes the arena that of a hollow process that is about to start.
func (a Arena) Reset() { atomic.StoreUint32(a.word(seqAt), 1) }

// Give writes orders for the process target (its PID as it sees it itself) and
// returns their number for Await. The target looks at them when it gets SIGUSR1.
func (a Arena) Give(target int, orders []Order) uint32 {
	// A process that is awake for another reason must not take these for its own
	// before their number is there, nor after it.
	to := (*uint64)(unsafe.Pointer(&a[targetAt]))
	atomic.StoreUint64(to, 0)
	for i, o := range orders {
		at := a[ArenaOrders+i*orderSize:][:orderSize]
		binary.NativeEndian.PutUint64(at, uint64(o.Nr))
		for j, v := range o.Args {
			binary.NativeEndian.PutUint64(at[8+8*j:], v)
		}
		binary.NativeEndian.PutUint64(at[56:], o.Flags)
		result := int64(notRun)
		binary.NativeEndian.PutUint64(at[resultAt:], uint64(result))
		binary.NativeEndian.PutUint64(at[72:], uint64(-int64(o.After)))
	}
	binary.NativeEndian.PutUint64(a[countAt:], uint64(len(orders)))
	n := atomic.AddUint32(a.word(seqAt), 1)
	atomic.StoreUint64(to, uint64(target))
	return n
}

// First is the number of what a hollow process does when it starts.
const First uint32 = 1

// Await waits until the orders of that number were carried out, at most for limit
// (unix.ETIMEDOUT); futex(2).
func (a Arena) Await(number uint32, limit time.Duration) error {
	end := time.Now().Add(limit)
	for {
		done := atomic.LoadUint32(a.word(doneAt))
		if done == number {
			return nil
		}
		left := time.Until(end)
		if left <= 0 {
			return unix.ETIMEDOUT
		}
		ts := unix.NsecToTimespec(left.Nanoseconds())
		_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(a.word(doneAt))), 0, uintptr(done), uintptr(unsafe.Pointer(&ts)), 0, 0)
	}
}

// Result is what order i returned; ran is false if it was not carried out.
func (a Arena) Result(i int) (value int64, err unix.Errno, ran bool) {
	v := int64(binary.NativeEndian.Uint64(a[ArenaOrders+i*orderSize+resultAt:]))
	switch {
	case v == notRun:
		return 0, 0, false
	case v < 0 && v >= -4095:
		return 0, unix.Errno(-v), true
	}
	return v, 0, true
}

// Report is what a hollow process writes about a child: wait4(2).
type Report struct {
	PID    int32
	Status unix.WaitStatus
	Usage  unix.Rusage
}

// ReportSize is the size of an encoded Report in bytes; it is below PIPE_BUF, so
// that reports of several processes do not mix in a pipe.
const ReportSize = 16 + int(unsafe.Sizeof(unix.Rusage{}))

// DecodeReport reads a Report from the ReportSize bytes of b.
func DecodeReport(b []byte) Report {
	r := Report{PID: int32(binary.NativeEndian.Uint64(b)), Status: unix.WaitStatus(binary.NativeEndian.Uint32(b[8:]))}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&r.Usage)), unsafe.Sizeof(r.Usage)), b[16:ReportSize])
	return r
}

// CloneArgs is struct clone_args of clone3(2), as the orders' memory holds it, for
// a child with the PID want (0: any) and these flags.
func CloneArgs(flags uint64, exit unix.Signal, setTID uint64, n uint64) []byte {
	b := make([]byte, 88)
	binary.NativeEndian.PutUint64(b, flags)
	binary.NativeEndian.PutUint64(b[32:], uint64(exit))
	binary.NativeEndian.PutUint64(b[64:], setTID)
	binary.NativeEndian.PutUint64(b[72:], n)
	return b
}
