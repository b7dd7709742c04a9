package rexec

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"ssi/internal/api"
	"ssi/internal/proc"
)

// Bits of request.files and api.ExecRequest.Files.
const (
	noStdin     = 1 << 0
	splitStderr = 1 << 1
	background  = 1 << 2 // only with a terminal: the caller does not have its own
	surrogate   = 1 << 3 // only to the caller's node: the command shall have the caller's place
)

// request is one command to run, as it travels between nodes.
type request struct {
	spec  proc.Spec
	files uint8
	term  *api.Term // nil: no terminal
}

const (
	requestVersion = 1
	termSize       = 4*4 + 19 + 2*2 // struct termios of the kernel has 19 control characters
	maxRequest     = proc.MaxSpec + 2 + termSize
)

// append appends the encoding: length (4 bytes), version, files, a terminal or
// nothing, the Spec.
func (r *request) append(b []byte) ([]byte, error) {
	start := len(b)
	b = append(b, 0, 0, 0, 0, requestVersion, r.files)
	if r.term != nil {
		b[len(b)-1] |= 0x80
		for _, v := range []uint32{r.term.Iflag, r.term.Oflag, r.term.Cflag, r.term.Lflag} {
			b = binary.BigEndian.AppendUint32(b, v)
		}
		var cc [19]byte
		copy(cc[:], r.term.Cc)
		b = append(b, cc[:]...)
		b = binary.BigEndian.AppendUint16(b, r.term.Rows)
		b = binary.BigEndian.AppendUint16(b, r.term.Cols)
	}
	b, err := r.spec.Append(b)
	if err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b, nil
}

// readRequest reads what append made.
func readRequest(r io.Reader) (*request, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxRequest {
		return nil, proc.ErrTooLong
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	return decodeRequest(b)
}

func decodeRequest(b []byte) (*request, error) {
	if len(b) < 2 || b[0] != requestVersion {
		return nil, fmt.Errorf("%w: request of another version", errFrame)
	}
	req := &request{files: b[1] &^ 0x80}
	hasTerm := b[1]&0x80 != 0
	b = b[2:]
	if hasTerm {
		if len(b) < termSize {
			return nil, errFrame
		}
		req.term = &api.Term{
			Iflag: binary.BigEndian.Uint32(b), Oflag: binary.BigEndian.Uint32(b[4:]),
			Cflag: binary.BigEndian.Uint32(b[8:]), Lflag: binary.BigEndian.Uint32(b[12:]),
			Cc:   append([]byte(nil), b[16:16+19]...),
			Rows: binary.BigEndian.Uint16(b[16+19:]), Cols: binary.BigEndian.Uint16(b[16+21:]),
		}
		b = b[termSize:]
	}
	spec, err := proc.Decode(b)
	if err != nil {
		return nil, err
	}
	inBackground := req.files&background != 0
	if spec.Session != hasTerm || spec.Background != inBackground || req.files&^(noStdin|splitStderr|background) != 0 {
		return nil, errFrame
	}
	req.spec = *spec
	return req, nil
}

// name is the command's name for messages.
func (r *request) name() string { return r.spec.Argv[0] }

// termios is t over the modes that a new terminal has.
func termios(base unix.Termios, t *api.Term) *unix.Termios {
	base.Iflag, base.Oflag, base.Lflag = t.Iflag, t.Oflag, t.Lflag
	base.Cflag = base.Cflag&unix.CBAUD | t.Cflag&^unix.CBAUD
	copy(base.Cc[:], t.Cc)
	return &base
}

// setEnv returns env with the one variable changed or added.
func setEnv(env []string, name, value string) []string {
	out := make([]string, 0, len(env)+1)
	for _, v := range env {
		if !strings.HasPrefix(v, name+"=") {
			out = append(out, v)
		}
	}
	return append(out, name+"="+value)
}

// joinNUL and splitNUL carry strings in api.ExecRequest.
func joinNUL(list []string) []byte {
	var b []byte
	for _, s := range list {
		b = append(append(b, s...), 0)
	}
	return b
}

func splitNUL(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
}
