package call

import (
	"encoding/binary"
	"errors"
	"syscall"

	"ssi/internal/id"
)

// Bounds of encoded messages.
const (
	MaxRequest = 1 + 6*binary.MaxVarintLen64 + 3 + MaxMemory + 3 + 16*binary.MaxVarintLen64 + MaxGroups*binary.MaxVarintLen32 + 3*binary.MaxVarintLen64
	MaxReply   = 3*binary.MaxVarintLen64 + MaxMemory
)

var errMessage = errors.New("not an encoded call")

// A request is Nr (one byte) and, as unsigned varints unless said otherwise: the
// arguments, the length of In, In, OutLen, the fields of Caller in their order
// (Groups after their number), those of Origin. A reply is Ret (signed), Errno,
// and the rest is Out.

// Append appends the encoded request to b.
func (r *Request) Append(b []byte) []byte {
	b = append(b, byte(r.Nr))
	for _, a := range r.Args {
		b = binary.AppendUvarint(b, a)
	}
	b = binary.AppendUvarint(b, uint64(len(r.In)))
	b = append(b, r.In...)
	b = binary.AppendUvarint(b, uint64(r.OutLen))
	c := &r.Caller
	b = binary.AppendUvarint(b, uint64(c.Node))
	for _, v := range [...]int32{c.PID, c.TID, c.PGID, c.SID} {
		b = binary.AppendUvarint(b, uint64(uint32(v)))
	}
	for _, v := range [...]uint32{c.UID, c.EUID, c.SUID, c.FSUID, c.GID, c.EGID, c.SGID, c.FSGID} {
		b = binary.AppendUvarint(b, uint64(v))
	}
	b = binary.AppendUvarint(b, uint64(len(c.Groups)))
	for _, g := range c.Groups {
		b = binary.AppendUvarint(b, uint64(g))
	}
	b = binary.AppendUvarint(b, c.Caps)
	b = binary.AppendUvarint(b, uint64(r.Origin.Node))
	b = binary.AppendUvarint(b, r.Origin.Incarnation)
	return binary.AppendUvarint(b, r.Origin.Seq)
}

// DecodeRequest reads what Append wrote; In and Groups do not refer to b.
func DecodeRequest(b []byte) (*Request, error) {
	if len(b) == 0 || len(b) > MaxRequest {
		return nil, errMessage
	}
	r := &Request{Nr: Nr(b[0])}
	if _, ok := r.Nr.Row(); !ok {
		return nil, errMessage
	}
	d := decoder{b: b[1:]}
	for i := range r.Args {
		r.Args[i] = d.uint(1<<64 - 1)
	}
	r.In = d.bytes(int(d.uint(MaxMemory)))
	r.OutLen = uint32(d.uint(MaxMemory))
	c := &r.Caller
	c.Node = id.Node(d.uint(uint64(id.MaxNode)))
	for _, v := range [...]*int32{&c.PID, &c.TID, &c.PGID, &c.SID} {
		*v = int32(d.uint(1<<31 - 1))
	}
	for _, v := range [...]*uint32{&c.UID, &c.EUID, &c.SUID, &c.FSUID, &c.GID, &c.EGID, &c.SGID, &c.FSGID} {
		*v = uint32(d.uint(1<<32 - 1))
	}
	n := d.uint(MaxGroups)
	if n > uint64(len(d.b)) { // each takes a byte at least
		return nil, errMessage
	}
	if n > 0 {
		c.Groups = make([]uint32, n)
	}
	for i := range c.Groups {
		c.Groups[i] = uint32(d.uint(1<<32 - 1))
	}
	c.Caps = d.uint(1<<64 - 1)
	r.Origin.Node = id.Node(d.uint(uint64(id.MaxNode)))
	r.Origin.Incarnation = d.uint(1<<64 - 1)
	r.Origin.Seq = d.uint(1<<64 - 1)
	if d.bad || len(d.b) > 0 {
		return nil, errMessage
	}
	return r, nil
}

// Append appends the encoded reply to b.
func (r *Reply) Append(b []byte) []byte {
	b = binary.AppendVarint(b, r.Ret)
	b = binary.AppendUvarint(b, uint64(r.Errno))
	return append(b, r.Out...)
}

// maxErrno is MAX_ERRNO of the kernel.
const maxErrno = 4095

// DecodeReply reads what Append wrote; Out does not refer to b.
func DecodeReply(b []byte) (Reply, error) {
	var r Reply
	ret, n := binary.Varint(b)
	if n <= 0 {
		return r, errMessage
	}
	d := decoder{b: b[n:]}
	r.Ret, r.Errno = ret, syscall.Errno(d.uint(maxErrno))
	if d.bad || len(d.b) > MaxMemory {
		return Reply{}, errMessage
	}
	r.Out = d.bytes(len(d.b))
	return r, nil
}

// decoder takes values off the front of b until one is bad.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uint(most uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if d.bad || n <= 0 || v > most {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes(n int) []byte {
	if d.bad || n > len(d.b) {
		d.bad = true
		return nil
	}
	if n == 0 {
		return nil
	}
	p := append([]byte(nil), d.b[:n]...)
	d.b = d.b[n:]
	return p
}
