package ics

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// After the hello, ssi-ics is frames both ways: four bytes of length, then the
// kind, the number of the call and what the kind has. Numbers are big-endian.
// The client numbers its calls upwards and never uses a number twice on a
// connection.
const (
	kindRequest = 1 // client: a request, the rest of the frame
	kindItem    = 2 // server: one element of a stream, protobuf
	kindReply   = 3 // server: the end; the reply of a unary call, protobuf
	kindError   = 4 // server: the end; icspb.Error
	kindCancel  = 5 // client: nobody waits for the call any more
	kindCredit  = 6 // client: the server may send so much more, four bytes
)

const (
	frameFixed   = 1 + 8                 // kind, number
	requestFixed = 4 + 8 + 8 + 8 + 1     // deadline, incarnation, epoch, to, length of the method
	maxMethod    = math.MaxUint8         // bytes of a method's name
	maxFrame     = 1<<10 + MaxCall       // with room for the fields before the payload
	frameHead    = 4 + frameFixed        // of a frame, with its length
	maxDeadline  = math.MaxUint32        // ms; some 50 days
	maxErrorText = 16 << 10              // bytes of the text of an error
	callWindow   = 1 << 20               // cost of the items of a stream on their way
	itemCost     = callWindow / 64       // least cost of an item
	maxFrameKept = 256 << 10             // longest buffer that is kept for later frames
	maxRequests  = 4 * (MaxCall + 1<<10) // bytes of the requests in progress on a connection
)

// frame is one frame; body shares the memory it was read into.
type frame struct {
	kind byte
	call uint64
	body []byte
}

func decodeFrame(b []byte) (frame, error) {
	if len(b) < frameFixed {
		return frame{}, fmt.Errorf("frame: %w", errShort)
	}
	return frame{kind: b[0], call: binary.BigEndian.Uint64(b[1:]), body: b[frameFixed:]}, nil
}

// startFrame appends what every frame begins with.
func startFrame(b []byte, kind byte, call uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, 0, 0, 0, 0, kind), call)
}

// endFrame fills in the length of a frame that is complete.
func endFrame(b []byte) { binary.BigEndian.PutUint32(b, uint32(len(b)-4)) }

// request is what a call says before its payload: until when, which life calls,
// with what view, and whom it means.
type request struct {
	deadline    uint32 // ms from now; 0: none, which only a stream may have
	incarnation id.Incarnation
	epoch       id.Epoch
	to          id.Incarnation // 0: any
	method      string
	payload     []byte // the rest
}

func (r request) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, r.deadline)
	b = binary.BigEndian.AppendUint64(b, uint64(r.incarnation))
	b = binary.BigEndian.AppendUint64(b, uint64(r.epoch))
	b = binary.BigEndian.AppendUint64(b, uint64(r.to))
	b = append(b, byte(len(r.method)))
	b = append(b, r.method...)
	return append(b, r.payload...)
}

func decodeRequest(b []byte) (request, error) {
	if len(b) < requestFixed || len(b) < requestFixed+int(b[requestFixed-1]) {
		return request{}, fmt.Errorf("request: %w", errShort)
	}
	n := requestFixed + int(b[requestFixed-1])
	return request{
		deadline:    binary.BigEndian.Uint32(b),
		incarnation: id.Incarnation(binary.BigEndian.Uint64(b[4:])),
		epoch:       id.Epoch(binary.BigEndian.Uint64(b[12:])),
		to:          id.Incarnation(binary.BigEndian.Uint64(b[20:])),
		method:      string(b[requestFixed:n]),
		payload:     b[n:],
	}, nil
}

func decodeCredit(b []byte) (int, error) {
	if len(b) < 4 {
		return 0, fmt.Errorf("credit: %w", errShort)
	}
	return int(min(binary.BigEndian.Uint32(b), callWindow)), nil
}

// milliseconds is a time as requests tell it: never shorter, never none.
func milliseconds(d time.Duration) uint32 {
	ms := (max(d, 1) + time.Millisecond - 1) / time.Millisecond
	return uint32(min(ms, maxDeadline))
}

// costOf is what an item takes of the window of its stream: 64 small ones or
// 1 MiB may be on their way, and an item that is longer goes alone.
func costOf(item []byte) int { return max(len(item), itemCost) }

// appendMessage appends a message of protobuf, of at most MaxCall bytes.
func appendMessage(b []byte, m proto.Message) ([]byte, error) {
	start := len(b)
	b, err := proto.MarshalOptions{}.MarshalAppend(b, m)
	if err != nil {
		return b, errno.New(errno.Invalid, "", 0, "%w", err)
	}
	if len(b)-start > MaxCall {
		return b, errno.New(errno.Full, "", 0, "a message of %d bytes; at most %d are possible", len(b)-start, MaxCall)
	}
	return b, nil
}
