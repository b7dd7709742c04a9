package fuse

import (
	"context"
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"
)

// Request is what the kernel asks in the name of a caller. It is answered by
// exactly one of its methods; which fit is said there. Error fits all.
type Request struct {
	Op   Op
	Node uint64 // what it is about
	UID  uint32 // the caller's fsuid and fsgid, as the user namespace of the mount sees them
	GID  uint32
	PID  uint32 // the caller's thread, as the PID namespace of the mount sees it; 0: not in there

	Name   string // Lookup
	Handle uint64 // Readdir, ReaddirPlus, Releasedir: what Opened told
	Offset uint64 // Read, Readdir, ReaddirPlus
	Size   uint32 // the same: the longest answer, in bytes
	Input  []byte // Write: what is to be written; the offset is where programs think to be
	Set    uint32 // Setattr: what is to be set, SetMode and so on

	conn    *Conn
	unique  uint64
	waiting bool
}

// Context is a context for the time until the answer; it is cancelled when the
// caller is interrupted by a signal. parent bounds it.
func (r *Request) Context(parent context.Context) context.Context {
	ctx, cancel := context.WithCancel(parent)
	r.waiting = true
	r.conn.mu.Lock()
	r.conn.waiting[r.unique] = cancel
	r.conn.mu.Unlock()
	return ctx
}

func (r *Request) answer(e unix.Errno, body []byte) {
	if r.waiting {
		r.conn.mu.Lock()
		cancel := r.conn.waiting[r.unique]
		delete(r.conn.waiting, r.unique)
		r.conn.mu.Unlock()
		if cancel != nil {
			cancel()
		}
	}
	r.conn.write(r.unique, e, body)
}

// Error answers with an error, or with success that says nothing more if e is 0.
func (r *Request) Error(e unix.Errno) { r.answer(e, nil) }

// Entry answers Lookup.
func (r *Request) Entry(e *Entry) { r.answer(0, appendEntry(make([]byte, 0, entryLen), e)) }

// Attr answers Getattr and Setattr; the kernel believes it for ttl.
func (r *Request) Attr(a *Attr, ttl time.Duration) {
	le := binary.NativeEndian
	b := make([]byte, 0, attrOutLen)
	b = le.AppendUint64(b, uint64(ttl/time.Second))
	b = le.AppendUint32(b, uint32(ttl%time.Second))
	b = le.AppendUint32(b, 0)
	r.answer(0, appendAttr(b, r.Node, a))
}

// Written answers Write: n bytes were taken.
func (r *Request) Written(n int) {
	le := binary.NativeEndian
	r.answer(0, le.AppendUint32(le.AppendUint32(make([]byte, 0, writeOutLen), uint32(n)), 0))
}

// Data answers Readlink.
func (r *Request) Data(b []byte) { r.answer(0, b) }

// Content answers Read with what content, the whole file, has at the offset.
func (r *Request) Content(content []byte) {
	from := min(r.Offset, uint64(len(content)))
	to := min(from+uint64(r.Size), uint64(len(content)))
	r.answer(0, content[from:to])
}

// Opened answers Opendir.
func (r *Request) Opened(handle uint64) {
	le := binary.NativeEndian
	b := le.AppendUint64(make([]byte, 0, openOutLen), handle)
	r.answer(0, le.AppendUint64(b, 0))
}

// Statfs answers Statfs, for a file system without blocks.
func (r *Request) Statfs() {
	le := binary.NativeEndian
	b := make([]byte, 40, statfsOutLen)
	b = le.AppendUint32(b, 4096) // block size
	b = le.AppendUint32(b, 255)  // longest name
	b = le.AppendUint32(b, 4096)
	r.answer(0, append(b, make([]byte, statfsOutLen-len(b))...))
}

// Listing gathers the answer to Readdir or ReaddirPlus.
type Listing struct {
	r *Request
	b []byte
}

// Listing begins the answer.
func (r *Request) Listing() *Listing {
	return &Listing{r: r, b: make([]byte, 0, r.Size)}
}

// Add adds a name, and reports false if there is no room for it. For ReaddirPlus
// it comes with what a lookup would tell; e is nil, or its node 0, if that is for a lookup
// to find out.
func (l *Listing) Add(d *Dirent, e *Entry) bool {
	size := direntSize(d.Name)
	if l.r.Op == ReaddirPlus {
		size += entryLen
	}
	if len(l.b)+size > int(l.r.Size) {
		return false
	}
	if l.r.Op == ReaddirPlus {
		if e == nil {
			e = &Entry{}
		}
		l.b = appendEntry(l.b, e)
	}
	l.b = appendDirent(l.b, d)
	return true
}

// Send answers.
func (l *Listing) Send() { l.r.answer(0, l.b) }
