package call

import (
	"os"
	"syscall"

	"ssi/internal/id"
)

// Limits of a call.
const (
	MaxMemory = 8192  // bytes in, and bytes out
	MaxGroups = 65536 // NGROUPS_MAX of the kernel
)

// Request is one call, with the memory it reads.
type Request struct {
	Nr Nr
	// Args are the arguments as the caller passed them, 32-bit ones of a 32-bit
	// program without sign; see Int. Pointers of the row's Mem are 0 (null) or 1.
	Args [6]uint64
	// In is the memory that the call reads, the pieces in the row's order; a null
	// pointer has none.
	In []byte
	// OutLen is the room for memory that the call writes, all pieces together in
	// the row's order, without those of null pointers; see Call.Pieces.
	OutLen uint32
	Caller Caller
	Origin Origin
	// File is the caller's file that argument 0 of PidfdSendSignal names, if that
	// is not a pidfd. It does not travel, and is closed after the call.
	File *os.File
}

// Int is argument i as the int or pid_t that it is.
func (r *Request) Int(i int) int32 { return int32(r.Args[i]) }

// Caller is the identity of the calling thread. IDs are those of its node's own
// user namespace.
type Caller struct {
	Node                   id.Node
	PID, TID               int32 // thread group and thread
	PGID, SID              int32
	UID, EUID, SUID, FSUID uint32
	GID, EGID, SGID, FSGID uint32
	Groups                 []uint32
	Caps                   uint64 // effective, in the node's own user namespace; 0 if the caller is in another
}

// Origin names one call, through restarts of the daemons: the executing node does
// what it names once.
type Origin struct {
	Node        id.Node
	Incarnation uint64 // of the node's journal
	Seq         uint64
}

// Reply is the answer to a Request.
type Reply struct {
	Ret   int64
	Errno syscall.Errno // 0, or why the call failed; Ret is meaningless then
	// Out is what the call wrote, at most OutLen bytes, in order; fewer bytes fill
	// the pieces as far as they go.
	Out []byte
}

// Outcome is what becomes of a caught call: one of
// the caller's kernel goes on with it (Continue), a file is given to the caller
// and its number is the result (File), the answer is Reply.
type Outcome struct {
	Continue    bool
	File        *os.File // closed by who gets the Outcome
	CloseOnExec bool     // of File
	Reply       Reply
}

// Fail is the outcome of a call that fails with e.
func Fail(e syscall.Errno) Outcome { return Outcome{Reply: Reply{Errno: e}} }

// Piece is one part of the memory of a call.
type Piece struct {
	Arg    int
	Len    int
	Layout Layout
}

// Pieces is what of the memory of a call goes in direction d, for these arguments.
// Pieces of null pointers are left out. A piece is as long as the kernel would
// look at, at most MaxMemory; one of Layout Attr has length 0: the gate reads its
// length from the caller, and the kernel writes back 4 bytes of it at most.
func (c *Call) Pieces(args *[6]uint64, d Dir) []Piece {
	var pieces []Piece
	room := MaxMemory
	for _, m := range c.Mem {
		if m.Dir&d == 0 || args[m.Arg] == 0 {
			continue
		}
		n := m.Size
		if m.SizeArg > 0 {
			count := args[m.SizeArg] & 0xffffffff
			if c.Class != Always {
				count = min(count, maxPiece(c.Nr))
			}
			n = int(min(count, uint64(MaxMemory/m.Size))) * m.Size
		}
		if m.Layout == Attr && d == Out {
			n = 4
		}
		n = min(n, room)
		room -= n
		pieces = append(pieces, Piece{Arg: m.Arg, Len: n, Layout: m.Layout})
	}
	return pieces
}

// maxPiece is beyond what the kernel looks at of memory whose length the caller
// says: longer masks are cut, and a longer structure is refused by its length.
func maxPiece(n Nr) uint64 {
	if n == SchedGetaffinity || n == SchedSetaffinity {
		return maxMask
	}
	return 4096
}
