package spawn

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"ssi/internal/proc"
)

// A request is its length (4 bytes, big endian) and an encoded proc.Spec; the
// files come with the first byte. A reply is its length and the body below; the
// pidfd comes with the first byte.
const (
	lenSize  = 4
	maxReply = lenSize + proc.MaxMessage
)

var errReply = errors.New("the spawn role answered with garbage")

// A reply's body is the PID (4 bytes) or, after a zero PID, a proc.Failure.
func appendReply(b []byte, pid int32, f *proc.Failure) []byte {
	body := binary.BigEndian.AppendUint32(nil, uint32(pid))
	if f != nil {
		body = f.Append(body)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	return append(b, body...)
}

func decodeReply(b []byte) (pid int32, f *proc.Failure, err error) {
	if len(b) < lenSize {
		return 0, nil, errReply
	}
	pid = int32(binary.BigEndian.Uint32(b))
	b = b[lenSize:]
	if pid > 0 && len(b) == 0 {
		return pid, nil, nil
	}
	if f = proc.DecodeFailure(b); pid != 0 || f == nil {
		return 0, nil, errReply
	}
	return 0, f, nil
}

// rightsOf returns the descriptors of a control message.
func rightsOf(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control message: %w", err)
	}
	var all []int
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		all = append(all, fds...)
	}
	return all, nil
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
