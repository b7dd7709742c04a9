package ics

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// Everything is a frame (bulk streams only until they begin): four bytes of length, big-endian, then
// the body. Numbers are big-endian. Decoders ignore what follows the fields
// they know, so later versions may append.

const (
	helloVersion = 1
	helloFixed   = 1 + 8 + 8 + 8 + 1 // version, incarnation, epoch, to, length of name
	maxHello     = helloFixed + MaxBulkName + MaxBulkHeader
	maxReply     = 4 << 10
	maxReplyText = 2 << 10
)

var errShort = errors.New("truncated")

// hello is the first thing a client says after the handshake.
type hello struct {
	incarnation id.Incarnation
	epoch       id.Epoch
	to          id.Incarnation // the life it means to talk to; 0: any
	name        string         // ssi-bulk: which service
	header      []byte         // ssi-bulk: for its handler; the rest of the frame
}

func (h hello) encode() []byte {
	b := make([]byte, 4, 4+helloFixed+len(h.name)+4+len(h.header))
	b = append(b, helloVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(h.incarnation))
	b = binary.BigEndian.AppendUint64(b, uint64(h.epoch))
	b = binary.BigEndian.AppendUint64(b, uint64(h.to))
	b = append(b, byte(len(h.name)))
	b = append(b, h.name...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(h.header)))
	b = append(b, h.header...)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

func decodeHello(b []byte) (hello, error) {
	if len(b) < helloFixed {
		return hello{}, fmt.Errorf("hello: %w", errShort)
	}
	if b[0] != helloVersion {
		return hello{}, fmt.Errorf("hello: protocol version %d, this node speaks %d", b[0], helloVersion)
	}
	h := hello{
		incarnation: id.Incarnation(binary.BigEndian.Uint64(b[1:])),
		epoch:       id.Epoch(binary.BigEndian.Uint64(b[9:])),
		to:          id.Incarnation(binary.BigEndian.Uint64(b[17:])),
	}
	n := int(b[25])
	b = b[helloFixed:]
	if n > MaxBulkName || len(b) < n+4 {
		return hello{}, fmt.Errorf("hello: name: %w", errShort)
	}
	h.name, b = string(b[:n]), b[n:]
	size := binary.BigEndian.Uint32(b)
	b = b[4:]
	if size > MaxBulkHeader || int(size) > len(b) {
		return hello{}, fmt.Errorf("hello: header: %w", errShort)
	}
	h.header = b[:size:size]
	return h, nil
}

// reply answers a hello: the server's incarnation, and a refusal or none.
type reply struct {
	incarnation id.Incarnation
	refusal     *errno.Error
}

func (r reply) encode() []byte {
	b := make([]byte, 4, 64)
	b = append(b, helloVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(r.incarnation))
	if r.refusal == nil {
		b = append(b, 0)
	} else {
		text := r.refusal.Text
		b = append(b, 1, byte(r.refusal.Kind))
		b = append(b, text[:min(len(text), maxReplyText)]...)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

func decodeReply(b []byte, from id.Node) (reply, error) {
	if len(b) < 10 || b[0] != helloVersion {
		return reply{}, errors.New("malformed answer to the hello")
	}
	r := reply{incarnation: id.Incarnation(binary.BigEndian.Uint64(b[1:]))}
	if b[9] != 0 {
		if len(b) < 11 {
			return reply{}, errors.New("malformed answer to the hello")
		}
		r.refusal = &errno.Error{Node: from, Kind: errno.Kind(b[10]), Text: oneLine(b[11:])}
	}
	return r, nil
}

// oneLine makes a text from a peer harmless for logs and terminals.
func oneLine(b []byte) string {
	out := make([]rune, 0, len(b))
	for _, r := range string(b) {
		if r < ' ' || r == 0x7f {
			r = ' '
		}
		out = append(out, r)
	}
	return string(out)
}

// readFrame reads one frame of at most limit bytes; the result is the caller's.
func readFrame(r io.Reader, limit int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > uint32(limit) {
		return nil, fmt.Errorf("frame of %d bytes, at most %d are allowed", n, limit)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return body, nil
}
