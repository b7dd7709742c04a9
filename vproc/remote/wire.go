package remote

import (
	"encoding/binary"
	"errors"

	"ssi/internal/id"
	"ssi/vproc/call"
)

// The methods of the service, both with google.protobuf.BytesValue each way.
const (
	// methodCall executes a call: an encoded ask, and an answer.
	methodCall = "ssi.vproc.Remote/Call"
	// methodWait waits for the end of processes: encoded targets, and the places of
	// those in the list that have ended, unsigned varints; none after waitTime.
	methodWait = "ssi.vproc.Remote/Wait"
)

// target is one process or thread of a node. Its PID can be given out again, its
// number not before the node is started anew.
type target struct {
	pid    int32
	thread bool // PIDFD_THREAD
	boot   uint64
	number uint64 // inode of its pidfds, unique since Linux 6.9
}

const targetSize = 4 + 1 + 8 + 8

func (t target) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(t.pid))
	thread := byte(0)
	if t.thread {
		thread = 1
	}
	b = append(b, thread)
	b = binary.LittleEndian.AppendUint64(b, t.boot)
	return binary.LittleEndian.AppendUint64(b, t.number)
}

var errWire = errors.New("not a message of this service")

func decodeTarget(b []byte) (target, error) {
	if len(b) < targetSize || b[4] > 1 {
		return target{}, errWire
	}
	t := target{
		pid: int32(binary.LittleEndian.Uint32(b)), thread: b[4] == 1,
		boot: binary.LittleEndian.Uint64(b[5:]), number: binary.LittleEndian.Uint64(b[13:]),
	}
	if t.pid <= 0 {
		return target{}, errWire
	}
	return t, nil
}

// ask is a call as it goes to another node: one byte that says whether it is aimed
// at a pidfd, the target of that, and the request.
type ask struct {
	file *target // of a call of kind ByFile
	r    *call.Request
}

func (a ask) encode() []byte {
	b := make([]byte, 0, 256+len(a.r.In)+5*len(a.r.Caller.Groups))
	if a.file == nil {
		b = append(b, 0)
	} else {
		b = a.file.append(append(b, 1))
	}
	return a.r.Append(b)
}

func decodeAsk(b []byte) (a ask, err error) {
	if len(b) == 0 || b[0] > 1 {
		return ask{}, errWire
	}
	byFile := b[0] == 1
	b = b[1:]
	if byFile {
		t, err := decodeTarget(b)
		if err != nil {
			return ask{}, err
		}
		a.file, b = &t, b[targetSize:]
	}
	a.r, err = call.DecodeRequest(b)
	if err != nil || byFile != (a.r.Target().Kind == call.ByFile) {
		return ask{}, errWire
	}
	return a, nil
}

// An answer is an encoded call.Reply; or it says that the process lives on another
// node, and nothing was done: the number of that node (signed varint), where a reply
// has its result, and where that has its error number (unsigned varint) one that is
// none and counts versions of this form. To a node that does not know it, it is no
// answer.
const moved1 = 4096

func encodeMoved(n id.Node) []byte {
	return binary.AppendUvarint(binary.AppendVarint(nil, int64(n)), moved1)
}

// decodeAnswer reads an answer; to is 0 in a reply.
func decodeAnswer(b []byte) (reply call.Reply, to id.Node, err error) {
	reply, err = call.DecodeReply(b)
	if err == nil {
		return reply, 0, nil
	}
	n, size := binary.Varint(b)
	if size <= 0 || n < 1 || n > int64(id.MaxNode) {
		return call.Reply{}, 0, errWire
	}
	if kind, rest := binary.Uvarint(b[size:]); kind != moved1 || size+rest != len(b) {
		return call.Reply{}, 0, errWire
	}
	return call.Reply{}, id.Node(n), nil
}

// maxTargets is how many processes one Wait waits for.
const maxTargets = maxFiles

func encodeTargets(ts []target) []byte {
	b := make([]byte, 0, len(ts)*targetSize)
	for _, t := range ts {
		b = t.append(b)
	}
	return b
}

func decodeTargets(b []byte) ([]target, error) {
	if len(b)%targetSize != 0 || len(b) == 0 || len(b) > maxTargets*targetSize {
		return nil, errWire
	}
	ts := make([]target, 0, len(b)/targetSize)
	for ; len(b) > 0; b = b[targetSize:] {
		t, err := decodeTarget(b)
		if err != nil {
			return nil, err
		}
		ts = append(ts, t)
	}
	return ts, nil
}

func encodePlaces(places []int) []byte {
	var b []byte
	for _, i := range places {
		b = binary.AppendUvarint(b, uint64(i))
	}
	return b
}

// decodePlaces reads places in a list of n.
func decodePlaces(b []byte, n int) ([]int, error) {
	var places []int
	for len(b) > 0 {
		v, k := binary.Uvarint(b)
		if k <= 0 || v >= uint64(n) || len(places) >= n {
			return nil, errWire
		}
		places = append(places, int(v))
		b = b[k:]
	}
	return places, nil
}
