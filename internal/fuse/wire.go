package fuse

import (
	"bytes"
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"
)

// Op is what a request asks for (enum fuse_opcode).
type Op uint32

// The requests that are known.
const (
	Lookup      Op = 1
	forget      Op = 2
	Getattr     Op = 3
	Setattr     Op = 4
	Readlink    Op = 5
	Open        Op = 14
	Read        Op = 15
	Write       Op = 16
	Statfs      Op = 17
	release     Op = 18
	flush       Op = 25
	initialise  Op = 26
	Opendir     Op = 27
	Readdir     Op = 28
	Releasedir  Op = 29
	interrupt   Op = 36
	destroy     Op = 38
	batchForget Op = 42
	ReaddirPlus Op = 44
)

// The version of the protocol that is spoken: 7.40 of Linux 6.9. A kernel that
// knows less uses less.
const (
	major = 7
	minor = 40
)

// Sizes of the structures, in bytes.
const (
	inHeaderLen  = 40
	outHeaderLen = 16
	attrLen      = 88
	entryLen     = 40 + attrLen
	attrOutLen   = 16 + attrLen
	openOutLen   = 16
	setattrInLen = 88
	writeInLen   = 40
	writeOutLen  = 8
	initInLen    = 16 // what every kernel sends
	initOutLen   = 64
	statfsOutLen = 80
	direntLen    = 24

	// maxRequest is FUSE_MIN_READ_BUFFER, the least the kernel accepts. The longest request is a Write of MaxWrite bytes.
	maxRequest = 8192
)

// MaxWrite is how many bytes a Write has at most; the kernel makes several of more.
const MaxWrite = 4096

// What Setattr is to set (FATTR_ flags).
const (
	SetMode = 1 << 0
	SetUID  = 1 << 1
	SetGID  = 1 << 2
	SetSize = 1 << 3
)

// Flags of FUSE_INIT that are used if the kernel has them.
const (
	flagAsyncRead       = 1 << 0
	flagAutoInvalData   = 1 << 12 // an mtime that changed drops the cached pages
	flagReaddirPlus     = 1 << 13
	flagReaddirPlusAuto = 1 << 14
	flagParallelDirops  = 1 << 18
	flagMaxPages        = 1 << 22
	flagInitExt         = 1 << 30
	flagHasResend       = 1 << 39
	wanted              = flagAsyncRead | flagAutoInvalData | flagReaddirPlus | flagReaddirPlusAuto | flagParallelDirops | flagMaxPages | flagInitExt | flagHasResend
)

// Notifications (enum fuse_notify_code).
const (
	notifyInvalInode = 2
	notifyInvalEntry = 3
	notifyResend     = 7
)

// Attr is what stat(2) tells of a file; the inode number is the node ID.
type Attr struct {
	Size  uint64
	Mtime time.Time // of access and change, too
	Mode  uint32    // with the type, as in st_mode
	Nlink uint32
	UID   uint32
	GID   uint32
}

func appendAttr(b []byte, node uint64, a *Attr) []byte {
	le := binary.NativeEndian
	var sec uint64
	var nsec uint32
	if !a.Mtime.IsZero() {
		sec, nsec = uint64(a.Mtime.Unix()), uint32(a.Mtime.Nanosecond())
	}
	b = le.AppendUint64(b, node)
	b = le.AppendUint64(b, a.Size)
	b = le.AppendUint64(b, (a.Size+511)/512)
	for range 3 {
		b = le.AppendUint64(b, sec)
	}
	for range 3 {
		b = le.AppendUint32(b, nsec)
	}
	b = le.AppendUint32(b, a.Mode)
	b = le.AppendUint32(b, a.Nlink)
	b = le.AppendUint32(b, a.UID)
	b = le.AppendUint32(b, a.GID)
	b = le.AppendUint32(b, 0)    // rdev
	b = le.AppendUint32(b, 4096) // block size
	return le.AppendUint32(b, 0) // flags
}

// Entry is the answer to a lookup: what lies behind a name, and for how long the
// kernel may believe it without asking again. Node 0 is "no such name", believed
// for EntryTTL.
type Entry struct {
	Node     uint64
	EntryTTL time.Duration // of the name
	AttrTTL  time.Duration // of Attr
	Attr     Attr
}

func appendEntry(b []byte, e *Entry) []byte {
	le := binary.NativeEndian
	b = le.AppendUint64(b, e.Node)
	b = le.AppendUint64(b, 1) // generation: node IDs are never used twice for different files
	b = le.AppendUint64(b, uint64(e.EntryTTL/time.Second))
	b = le.AppendUint64(b, uint64(e.AttrTTL/time.Second))
	b = le.AppendUint32(b, uint32(e.EntryTTL%time.Second))
	b = le.AppendUint32(b, uint32(e.AttrTTL%time.Second))
	return appendAttr(b, e.Node, &e.Attr)
}

// Dirent is a name in a directory. Off is where the listing goes on after it.
type Dirent struct {
	Name string
	Node uint64
	Off  uint64
	Type uint32 // S_IFDIR and so on
}

func direntSize(name string) int { return (direntLen + len(name) + 7) &^ 7 }

func appendDirent(b []byte, d *Dirent) []byte {
	le := binary.NativeEndian
	b = le.AppendUint64(b, d.Node)
	b = le.AppendUint64(b, d.Off)
	b = le.AppendUint32(b, uint32(len(d.Name)))
	b = le.AppendUint32(b, d.Type>>12) // DT_DIR is S_IFDIR>>12, and so on
	b = append(b, d.Name...)
	return append(b, make([]byte, direntSize(d.Name)-direntLen-len(d.Name))...)
}

// header is struct fuse_in_header.
type header struct {
	length uint32
	op     Op
	unique uint64
	node   uint64
	uid    uint32
	gid    uint32
	pid    uint32
}

func parseHeader(b []byte) (h header, ok bool) {
	if len(b) < inHeaderLen {
		return header{}, false
	}
	le := binary.NativeEndian
	h = header{
		length: le.Uint32(b), op: Op(le.Uint32(b[4:])), unique: le.Uint64(b[8:]), node: le.Uint64(b[16:]),
		uid: le.Uint32(b[24:]), gid: le.Uint32(b[28:]), pid: le.Uint32(b[32:]),
	}
	return h, int(h.length) == len(b)
}

// parse makes a request of what the kernel sent. It keeps nothing of b. It is
// false for what no kernel sends.
func parse(b []byte) (*Request, bool) {
	h, ok := parseHeader(b)
	if !ok {
		return nil, false
	}
	r := &Request{Op: h.op, Node: h.node, UID: h.uid, GID: h.gid, PID: h.pid, unique: h.unique}
	body := b[inHeaderLen:]
	le := binary.NativeEndian
	switch h.op {
	case Lookup:
		if len(body) < 2 || body[len(body)-1] != 0 {
			return nil, false
		}
		r.Name = string(body[:len(body)-1])
	case Read, Readdir, ReaddirPlus:
		if len(body) < 20 {
			return nil, false
		}
		r.Handle, r.Offset, r.Size = le.Uint64(body), le.Uint64(body[8:]), le.Uint32(body[16:])
	case Setattr:
		if len(body) < setattrInLen {
			return nil, false
		}
		r.Set = le.Uint32(body)
	case Write:
		if len(body) < writeInLen || len(body)-writeInLen > MaxWrite || int(le.Uint32(body[16:])) != len(body)-writeInLen {
			return nil, false
		}
		r.Offset, r.Input = le.Uint64(body[8:]), bytes.Clone(body[writeInLen:])
	case Releasedir:
		if len(body) < 8 {
			return nil, false
		}
		r.Handle = le.Uint64(body)
	case interrupt:
		if len(body) < 8 {
			return nil, false
		}
		r.Offset = le.Uint64(body) // the unique of what is interrupted
	case initialise:
		if len(body) < initInLen {
			return nil, false
		}
		r.Handle = uint64(le.Uint32(body))<<32 | uint64(le.Uint32(body[4:])) // the version
		r.Offset = uint64(le.Uint32(body[12:]))
		if r.Offset&flagInitExt != 0 && len(body) >= initInLen+4 {
			r.Offset |= uint64(le.Uint32(body[16:])) << 32
		}
		r.Size = le.Uint32(body[8:]) // max_readahead
	}
	return r, true
}

// initOut is the answer to FUSE_INIT.
func initOut(r *Request) ([]byte, unix.Errno) {
	if r.Handle>>32 != major {
		return nil, unix.EPROTO
	}
	le := binary.NativeEndian
	flags := r.Offset & wanted
	b := make([]byte, 0, initOutLen)
	b = le.AppendUint32(b, major)
	b = le.AppendUint32(b, minor)
	b = le.AppendUint32(b, r.Size)
	b = le.AppendUint32(b, uint32(flags))
	b = le.AppendUint16(b, 64) // max_background
	b = le.AppendUint16(b, 48) // congestion_threshold
	b = le.AppendUint32(b, MaxWrite)
	b = le.AppendUint32(b, 1)  // time_gran, nanoseconds
	b = le.AppendUint16(b, 32) // max_pages: listings of 128 KiB
	b = le.AppendUint16(b, 0)  // map_alignment
	b = le.AppendUint32(b, uint32(flags>>32))
	return append(b, make([]byte, initOutLen-len(b))...), 0
}
