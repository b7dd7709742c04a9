package rexec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/sys"
)

// A frame is its kind (1 byte), its length (3 bytes, big endian) and the data.
const (
	headSize    = 4
	maxData     = 128 << 10
	stdinWindow = 1 << 20
)

// kind says what a frame is. The numbers travel: append, never renumber.
type kind byte

const (
	kindStdin     kind = iota + 1 // to the command: bytes
	kindStdinEOF                  // to the command
	kindWindow                    // to the command: rows, columns (2 bytes each)
	kindSignal                    // to the command: signal (1 byte)
	kindContinue                  // to the command: go on; flags of proc.MsgContinue, and number (1 byte each): without a terminal that of the stop it answers, or 0
	kindStdout                    // to the caller: bytes
	kindStderr                    // to the caller: bytes
	kindCredit                    // to the caller: so many bytes of stdin were taken (4 bytes)
	kindStopped                   // to the caller: by signal (1 byte); number (1 byte): with a terminal that of the last kindContinue, else of the stop
	kindExit                      // to the caller: code, signal, core (1 byte each)
	kindError                     // to the caller, and the last: see failure
	kindClosed                    // to the caller, after kindExit: all outputs are closed
	kindContinued                 // to the caller: it goes on after a stop
	kindAwake                     // from the caller, for its own node: it has read kindContinued
	kindPlaced                    // to the caller, before the output: the command has its PID
	kindInfo                      // to the command: a signal and who sent it, see infoFrame
	kindGone                      // from the caller's node: the process with this PID (4 bytes) has ended there
	kindKilled                    // from the caller's node: the caller was killed
)

var errFrame = errors.New("damaged frame")

// putHead writes the header of a frame with n bytes of data to b.
func putHead(b []byte, k kind, n int) {
	binary.BigEndian.PutUint32(b, uint32(k)<<24|uint32(n))
}

// frame makes a whole frame of data.
func frame(k kind, data ...byte) []byte {
	b := make([]byte, headSize, headSize+len(data))
	putHead(b, k, len(data))
	return append(b, data...)
}

// kindOf is the kind of a whole frame.
func kindOf(frame []byte) kind { return kind(frame[0]) }

// frameReader reads frames; the data of one is valid until the next.
type frameReader struct {
	r   io.Reader
	buf []byte // the last frame, with its header
}

// next reads one frame. io.EOF means that the stream ended between frames.
func (f *frameReader) next() (kind, []byte, error) {
	if cap(f.buf) < headSize {
		f.buf = make([]byte, 512)
	}
	f.buf = f.buf[:cap(f.buf)]
	if _, err := io.ReadFull(f.r, f.buf[:headSize]); err != nil {
		return 0, nil, err
	}
	head := binary.BigEndian.Uint32(f.buf)
	k, n := kind(head>>24), int(head&0xFFFFFF)
	if n > maxData || k == 0 || k > kindKilled {
		return 0, nil, fmt.Errorf("%w: kind %d, %d bytes", errFrame, k, n)
	}
	if need := headSize + n; cap(f.buf) < need {
		bigger := make([]byte, need, max(need, min(4*cap(f.buf), headSize+maxData)))
		copy(bigger, f.buf[:headSize])
		f.buf = bigger
	}
	f.buf = f.buf[:headSize+n]
	if _, err := io.ReadFull(f.r, f.buf[headSize:]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return k, f.buf[headSize:], nil
}

// whole is the last frame with its header.
func (f *frameReader) whole() []byte { return f.buf }

// Failure is why a command could not be run, or why its end is not known.
type Failure struct {
	Status int // what a shell would show: 126, 127 or 255
	Err    *errno.Error
}

func (f *Failure) Error() string { return f.Err.Error() }

func (f *Failure) Unwrap() error { return f.Err }

// lost is a failure with status 255.
func lost(k errno.Kind, node id.Node, format string, args ...any) *Failure {
	return &Failure{Status: 255, Err: errno.New(k, "", node, format, args...)}
}

// maxText is the longest text of an error frame in bytes.
const maxText = 4096

// A failure on the wire is status, kind (1 byte each), node (2 bytes) and text.
func (f *Failure) frame() []byte {
	text := f.Err.Text
	if text == "" {
		text = f.Err.Kind.String()
	}
	b := []byte{byte(f.Status), byte(f.Err.Kind)}
	b = binary.BigEndian.AppendUint16(b, uint16(f.Err.Node))
	return frame(kindError, append(b, text[:min(len(text), maxText)]...)...)
}

func decodeFailure(b []byte) (*Failure, error) {
	if len(b) < 4 || len(b) > 4+maxText {
		return nil, errFrame
	}
	text := strings.Map(func(r rune) rune { // for a terminal
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, string(b[4:]))
	e := &errno.Error{Kind: errno.Kind(b[1]), Node: id.Node(binary.BigEndian.Uint16(b[2:])), Text: text}
	return &Failure{Status: int(b[0]), Err: e}, nil
}

// infoFrame tells of a signal: number (1 byte), code, PID, user (4 bytes each), value
// (8 bytes).
func infoFrame(s *sys.Siginfo) []byte {
	b := []byte{byte(s.Signal)}
	b = binary.BigEndian.AppendUint32(b, uint32(s.Code))
	b = binary.BigEndian.AppendUint32(b, uint32(s.PID))
	b = binary.BigEndian.AppendUint32(b, s.UID)
	return frame(kindInfo, binary.BigEndian.AppendUint64(b, s.Value)...)
}

func decodeInfo(b []byte) (*sys.Siginfo, bool) {
	if len(b) != 21 || b[0] == 0 || b[0] > 64 {
		return nil, false
	}
	return &sys.Siginfo{
		Signal: unix.Signal(b[0]), Code: int32(binary.BigEndian.Uint32(b[1:])), PID: int32(binary.BigEndian.Uint32(b[5:])),
		UID: binary.BigEndian.Uint32(b[9:]), Value: binary.BigEndian.Uint64(b[13:]),
	}, true
}

// exitFrame tells how a command ended.
func exitFrame(ws unix.WaitStatus) []byte {
	if ws.Signaled() {
		core := byte(0)
		if ws.CoreDump() {
			core = 1
		}
		return frame(kindExit, 0, byte(ws.Signal()), core)
	}
	return frame(kindExit, byte(ws.ExitStatus()), 0, 0)
}
