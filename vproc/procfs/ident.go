package procfs

import (
	"hash/fnv"
	"math"

	"ssi/internal/id"
)

// A node ID of the file system says all about what it stands for, so that it
// outlives the process that handed it out:
//
//	far 1 bit | kind 3 | node 10 | pid 22 | rest 28
//
// far is set below /cluster/nodeN/proc: a directory has one parent, so what is
// seen from there is another one than that in /proc.
type kind uint64

const (
	kindFixed  kind = iota // rest: one of the fixed IDs below
	kindLocal              // the link of a local PID
	kindStatic             // a file or directory of the node; rest and pid: hash of its name
	kindRemote             // rest: serial 20 | file 8; file 0 is the directory of the process
	kindItem               // a numbered thing in a directory of a process; rest: directory 4 | number 24
	kindTask               // rest: thread 22 | file 6
	kindInfo               // a file of /proc/cluster; rest: hash of its name
	kindFar                // a file of /cluster/nodeN; rest: what, see farNode and so on
)

// The fixed IDs; 1 is the root (FUSE_ROOT_ID).
const (
	rootID uint64 = iota + 1
	selfID
	threadSelfID
	localID   // /proc/.local, where the real procfs is mounted
	clusterID // /proc/cluster
	farDirID  // /proc/.cluster, which is also /cluster
)

// The rest of kindFar.
const (
	farNode = iota // /cluster/nodeN
	farProc        // /cluster/nodeN/proc
	farFile        // and on: nodeFiles
)

// ident is a node ID taken apart.
type ident struct {
	far  bool
	kind kind
	node id.Node
	pid  id.PID
	rest uint64
}

const (
	pidBits    = 22
	restBits   = 28
	fileBits   = 8
	serialMask = 1<<(restBits-fileBits) - 1
	numberBits = 24
	tidBits    = pidBits
	taskBits   = restBits - tidBits // of the file in a task: 6
)

func (i ident) number() uint64 {
	far := uint64(0)
	if i.far {
		far = 1 << 63
	}
	return far | uint64(i.kind)<<60 | uint64(i.node)<<50 | uint64(i.pid)<<restBits | i.rest
}

func split(n uint64) ident {
	return ident{
		far: n>>63 != 0, kind: kind(n >> 60 & 7), node: id.Node(n >> 50 & (1<<10 - 1)),
		pid: id.PID(n >> restBits & (1<<pidBits - 1)), rest: n & (1<<restBits - 1),
	}
}

// file is the index in files, for kindRemote.
func (i ident) file() int { return int(i.rest & (1<<fileBits - 1)) }

// serial tells the answers to different callers apart, for a file of kindRemote that
// is fetched; 0: none yet.
func (i ident) serial() uint32 { return uint32(i.rest >> fileBits) }

// item is the directory and the number, for kindItem.
func (i ident) item() (dir int, number uint32) {
	return int(i.rest >> numberBits), uint32(i.rest & (1<<numberBits - 1))
}

// task is the thread and the index in taskFiles, for kindTask.
func (i ident) task() (tid id.PID, file int) {
	return id.PID(i.rest >> taskBits), int(i.rest & (1<<taskBits - 1))
}

func localPID(pid id.PID) uint64 { return ident{kind: kindLocal, pid: pid}.number() }

// processID is the directory of a process elsewhere, in /proc. The methods below
// give the IDs of what is in there, seen from the same place.
func processID(node id.Node, pid id.PID) ident { return ident{kind: kindRemote, node: node, pid: pid} }

func (i ident) remote(file int, serial uint32) uint64 {
	i.kind, i.rest = kindRemote, uint64(serial&serialMask)<<fileBits|uint64(file)
	return i.number()
}

func (i ident) child(dir int, number uint32) uint64 {
	i.kind, i.rest = kindItem, uint64(dir)<<numberBits|uint64(number&(1<<numberBits-1))
	return i.number()
}

func (i ident) thread(tid id.PID, file int) uint64 {
	i.kind, i.rest = kindTask, uint64(tid)<<taskBits|uint64(file)
	return i.number()
}

func farID(node id.Node, what int) uint64 {
	return ident{kind: kindFar, node: node, rest: uint64(what)}.number()
}

// named is the ID of something that only its name tells, in 50 bits.
func named(k kind, node id.Node, name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	return uint64(k)<<60 | uint64(node)<<50 | h.Sum64()&(1<<50-1)
}

// pidOf reads the name of a process as the kernel does: decimal, without zeros
// before it.
func pidOf(name string) (id.PID, bool) {
	if name == "" || name[0] == '0' || len(name) > 10 {
		return 0, false
	}
	n := int64(0)
	for i := range len(name) {
		c := name[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	if n > math.MaxInt32 || n >= 1<<pidBits {
		return 0, false
	}
	return id.PID(n), true
}
