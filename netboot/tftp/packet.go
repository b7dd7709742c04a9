package tftp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

const (
	// MaxRequest is how many bytes a request has: RFC 2347 says 512.
	MaxRequest = 512
	// MaxName is how many bytes the name of a file has.
	MaxName = 255
	// DefaultBlock is the size of a block that was not negotiated (RFC 1350).
	DefaultBlock = 512
	// MinBlock is the smallest block that may be negotiated (RFC 2348).
	MinBlock = 8
	// MaxBlock is the largest.
	MaxBlock = 65464
	// MaxWindow is how many blocks are sent without an acknowledgement; a
	// client that asks for more gets this (RFC 7440 allows 65535).
	MaxWindow = 64
)

// The operations (RFC 1350, 2347).
const (
	opRead  = 1
	opWrite = 2
	opData  = 3
	opAck   = 4
	opError = 5
	opOACK  = 6
)

// The error codes (RFC 1350, 2347).
const (
	codeUndefined   = 0
	codeNotFound    = 1
	codeAccess      = 2
	codeIllegal     = 4
	codeBadOption   = 8
	maxErrorMessage = 128
)

// errNoRequest is the cause when a packet is not worth an answer.
var errNoRequest = errors.New("it is no request")

// request is a decoded read request. An option that was not asked for is 0.
type request struct {
	name   string
	block  int
	window int
	tsize  bool
}

// refusal is an error that the client is told.
type refusal struct {
	code uint16
	text string
}

func (r refusal) Error() string { return r.text }

// parse decodes what came to the port of requests. The error is a refusal, or
// errNoRequest for what gets no answer.
func parse(b []byte) (request, error) {
	if len(b) < 4 || len(b) > MaxRequest {
		return request{}, errNoRequest
	}
	switch binary.BigEndian.Uint16(b) {
	case opRead:
	case opWrite:
		return request{}, refusal{codeAccess, "this server is read only"}
	default:
		return request{}, errNoRequest
	}
	fields := bytes.Split(b[2:], []byte{0})
	// The last field is what stands behind the last NUL: nothing, or padding cut off.
	if len(fields) < 3 {
		return request{}, refusal{codeIllegal, "the request is cut off"}
	}
	name, mode, options := string(fields[0]), string(fields[1]), fields[2:len(fields)-1]
	switch {
	case name == "" || len(name) > MaxName:
		return request{}, refusal{codeNotFound, fmt.Sprintf("a name has 1 to %d bytes", MaxName)}
	case !strings.EqualFold(mode, "octet"):
		return request{}, refusal{codeIllegal, "only the mode octet (binary) is served"}
	}
	r := request{name: name}
	for i := 0; i+1 < len(options); i += 2 {
		r.option(string(options[i]), string(options[i+1]))
	}
	return r, nil
}

// option takes an option; one that is unknown or out of range is ignored, as
// RFC 2347 says.
func (r *request) option(key, value string) {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil {
		return
	}
	switch {
	case strings.EqualFold(key, "blksize") && n >= MinBlock && n <= MaxBlock:
		r.block = int(n)
	case strings.EqualFold(key, "windowsize") && n >= 1 && n <= math.MaxUint16:
		r.window = int(min(n, MaxWindow))
	case strings.EqualFold(key, "tsize") && n == 0:
		r.tsize = true
	}
}

// options reports whether the client negotiates.
func (r request) options() bool { return r.block > 0 || r.window > 0 || r.tsize }

// oack encodes the acknowledgement of the options.
func (r request) oack(size int64) []byte {
	b := binary.BigEndian.AppendUint16(nil, opOACK)
	add := func(key string, value int64) {
		b = append(strconv.AppendInt(append(append(b, key...), 0), value, 10), 0)
	}
	if r.block > 0 {
		add("blksize", int64(r.block))
	}
	if r.window > 0 {
		add("windowsize", int64(r.window))
	}
	if r.tsize {
		add("tsize", size)
	}
	return b
}

// encodeError encodes an error packet.
func encodeError(code uint16, text string) []byte {
	b := binary.BigEndian.AppendUint16(nil, opError)
	b = binary.BigEndian.AppendUint16(b, code)
	return append(append(b, text[:min(len(text), maxErrorMessage)]...), 0)
}

// reply is a packet of a client within a transfer.
type reply struct {
	ack   bool // else an error
	block uint16
	code  uint16
	text  string
}

// parseReply decodes a packet of a client within a transfer; what is neither
// acknowledgement nor error is not ok and is ignored.
func parseReply(b []byte) (r reply, ok bool) {
	if len(b) < 4 {
		return reply{}, false
	}
	n := binary.BigEndian.Uint16(b[2:])
	switch binary.BigEndian.Uint16(b) {
	case opAck:
		return reply{ack: true, block: n}, true
	case opError:
		text, _, _ := bytes.Cut(b[4:], []byte{0})
		return reply{code: n, text: string(text[:min(len(text), maxErrorMessage)])}, true
	}
	return reply{}, false
}
