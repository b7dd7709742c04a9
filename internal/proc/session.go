package proc

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// The messages between the node role and the leader of a session (role
// session), by their first byte. The leader runs as the user: who reads them
// may not trust them with more than the user's own.
const (
	MsgStarted   = 'p' // leader: the PID of the command follows (4 bytes, big endian)
	MsgFailed    = 'f' // leader: a Failure follows
	MsgStopped   = 's' // leader: the signal that stopped the command and the number of the last MsgContinue follow (1 byte each)
	MsgContinued = 'c' // leader
	MsgSignal    = 'k' // to the leader: the signal for the command's process group follows (1 byte)
	MsgContinue  = 'g' // to the leader: let the command go on; flags (InBackground, NoSignal) and a number follow (1 byte each)
)

// Flags of MsgContinue. Without InBackground the command gets the terminal, if the
// leader's own group has it.
const (
	InBackground = 1 << 0 // the command's process group becomes one of the background
	NoSignal     = 1 << 1 // SIGCONT is not sent: the command was not stopped
)

// MaxMessage is above the size of every such message and of an encoded Failure.
const MaxMessage = 8192

// Append appends the encoding of f to b: the errno (4 bytes), the length of Op
// (1 byte), Op and Path. A path that is too long is cut.
func (f *Failure) Append(b []byte) []byte {
	op, path := f.Op[:min(len(f.Op), 255)], f.Path[:min(len(f.Path), MaxMessage-512)]
	b = binary.BigEndian.AppendUint32(b, uint32(f.Errno))
	b = append(b, byte(len(op)))
	b = append(b, op...)
	return append(b, path...)
}

// DecodeFailure reads a Failure from all of b, or returns nil.
func DecodeFailure(b []byte) *Failure {
	if len(b) < 5 || len(b) > MaxMessage || len(b)-5 < int(b[4]) {
		return nil
	}
	op := b[5 : 5+int(b[4])]
	return &Failure{Errno: unix.Errno(binary.BigEndian.Uint32(b)), Op: string(op), Path: string(b[5+len(op):])}
}
