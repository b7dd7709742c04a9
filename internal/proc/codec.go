package proc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// specVersion is the first byte of an encoded Spec; a later layout gets
// another number.
const specVersion = 4

// Limits of the parts of a Spec, for the decoder.
const (
	maxGroups = 65536 // NGROUPS_MAX
	maxLimits = 16    // RLIM_NLIMITS
	maxPath   = 4096  // PATH_MAX
)

// Bits of the byte that tells of session and background.
const (
	inSession    = 1 << 0
	inBackground = 1 << 1
)

// Append appends the encoding of s to b. It returns ErrTooLong if that is over
// MaxSpec.
func (s *Spec) Append(b []byte) ([]byte, error) {
	start := len(b)
	b = append(b, specVersion)
	b = appendStrings(b, s.Argv)
	b = appendString(b, s.Path)
	b = appendStrings(b, s.Env)
	b = appendString(b, s.Dir)
	b = binary.BigEndian.AppendUint32(b, s.UID)
	b = binary.BigEndian.AppendUint32(b, s.GID)
	b = binary.AppendUvarint(b, uint64(len(s.Groups)))
	for _, g := range s.Groups {
		b = binary.BigEndian.AppendUint32(b, g)
	}
	b = binary.BigEndian.AppendUint16(b, s.Umask)
	b = append(b, byte(s.Nice))
	b = binary.AppendUvarint(b, uint64(len(s.Limits)))
	for _, l := range s.Limits {
		b = append(b, l.Resource)
		b = binary.BigEndian.AppendUint64(b, l.Cur)
		b = binary.BigEndian.AppendUint64(b, l.Max)
	}
	session := byte(0)
	if s.Session {
		session |= inSession
	}
	if s.Background {
		session |= inBackground
	}
	b = append(b, session)
	b = binary.BigEndian.AppendUint64(b, s.Ignored)
	for _, v := range s.Place.numbers() {
		b = binary.BigEndian.AppendUint32(b, uint32(*v))
	}
	if len(b)-start > MaxSpec {
		return b[:start], fmt.Errorf("%w: %d bytes, at most %d", ErrTooLong, len(b)-start, MaxSpec)
	}
	return b, nil
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendStrings(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = appendString(b, s)
	}
	return b
}

var errDecode = errors.New("damaged description of a process")

// Decode reads a Spec from all of b and checks every value in it.
func Decode(b []byte) (*Spec, error) {
	if len(b) > MaxSpec {
		return nil, ErrTooLong
	}
	r := reader{b: b}
	if v := r.byte(); v != specVersion {
		return nil, fmt.Errorf("%w: version %d, this node knows %d", errDecode, v, specVersion)
	}
	s := &Spec{Argv: r.strings(), Path: r.string(), Env: r.strings(), Dir: r.string(), UID: r.uint32(), GID: r.uint32()}
	if n := r.count(4, maxGroups); n > 0 {
		s.Groups = make([]uint32, n)
		for i := range s.Groups {
			s.Groups[i] = r.uint32()
		}
	}
	s.Umask = uint16(r.uint(2))
	s.Nice = int8(r.byte())
	if n := r.count(17, maxLimits); n > 0 {
		s.Limits = make([]Rlimit, n)
		for i := range s.Limits {
			s.Limits[i] = Rlimit{Resource: r.byte(), Cur: r.uint(8), Max: r.uint(8)}
		}
	}
	session := r.byte()
	s.Session, s.Background = session&inSession != 0, session&inBackground != 0
	s.Ignored = r.uint(8)
	for _, v := range s.Place.numbers() {
		*v = int32(r.uint32())
	}
	if r.bad || len(r.b) != 0 || session&^(inSession|inBackground) != 0 {
		return nil, errDecode
	}
	return s, s.check()
}

func (s *Spec) check() error {
	switch {
	case len(s.Argv) == 0 || s.Argv[0] == "" && s.Path == "":
		return fmt.Errorf("%w: no command", errDecode)
	case s.Path != "" && (!strings.Contains(s.Path, "/") || len(s.Path) >= maxPath):
		return fmt.Errorf("%w: the path of the command", errDecode)
	case len(s.Dir) == 0 || s.Dir[0] != '/' || len(s.Dir) >= maxPath:
		return fmt.Errorf("%w: the working directory is not an absolute path", errDecode)
	case s.UID == 1<<32-1 || s.GID == 1<<32-1: // -1 means "leave it" to setresuid(2)
		return fmt.Errorf("%w: no such user or group", errDecode)
	case s.Background && !s.Session:
		return fmt.Errorf("%w: in the background of no session", errDecode)
	case !s.Place.valid():
		return fmt.Errorf("%w: its place among the processes", errDecode)
	case s.Umask > 0o777 || s.Nice < -20 || s.Nice > 19:
		return fmt.Errorf("%w: umask or nice value out of range", errDecode)
	}
	for _, l := range s.Limits {
		if l.Resource >= maxLimits || l.Cur > l.Max {
			return fmt.Errorf("%w: resource limit", errDecode)
		}
	}
	return nil
}

// reader takes values from the front of b; after the first value that does not
// fit it is bad and returns zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) uint(n int) uint64 {
	var v uint64
	for _, c := range r.take(n) {
		v = v<<8 | uint64(c)
	}
	return v
}

func (r *reader) byte() byte { return byte(r.uint(1)) }

func (r *reader) uint32() uint32 { return uint32(r.uint(4)) }

// count reads how many values of at least size bytes follow.
func (r *reader) count(size, limit int) int {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 || v > uint64(limit) || v > uint64(len(r.b)/size) {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return int(v)
}

// string reads a string without NUL, which execve(2) would end it at.
func (r *reader) string() string {
	v := r.take(r.count(1, MaxSpec))
	for _, c := range v {
		if c == 0 {
			r.bad = true
			return ""
		}
	}
	return string(v)
}

func (r *reader) strings() []string {
	n := r.count(1, MaxSpec)
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = r.string()
	}
	if r.bad {
		return nil
	}
	return list
}
