// Package errno holds the one error that crosses the wire between nodes.
//
// An Error says what was attempted (Op), where (Node), what class of failure
// it was (Kind) and why (Text). Callers compare kinds with Is or KindOf, never
// texts. Toward the kernel only Kind.Errno is used.
package errno

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"ssi/internal/id"
)

// Kind classifies failures so that callers can act on them.
type Kind uint8

// The kinds. Their numbers travel between nodes: append, never renumber.
const (
	Other       Kind = iota
	Invalid          // the request itself is wrong
	NotFound         // no such node, key, process …
	Exists           // it is there already, or a comparison failed
	Permission       // the caller may not
	Unavailable      // the peer left, is down, or cannot be reached
	Timeout          // the deadline passed
	NoQuorum         // the cluster cannot decide now
	Fenced           // this node lost its lease and serves nothing
	Full             // a limit was reached; nothing was changed
	Unknown          // the outcome is not known: it may have happened
	Stale            // the caller acted on an old epoch, term or revision
)

var kindTable = [...]struct {
	name  string
	errno syscall.Errno
}{
	Other:       {"error", syscall.EIO},
	Invalid:     {"invalid", syscall.EINVAL},
	NotFound:    {"not found", syscall.ENOENT},
	Exists:      {"exists", syscall.EEXIST},
	Permission:  {"permission denied", syscall.EPERM},
	Unavailable: {"unavailable", syscall.EHOSTUNREACH},
	Timeout:     {"timed out", syscall.ETIMEDOUT},
	NoQuorum:    {"no quorum", syscall.EAGAIN},
	Fenced:      {"fenced", syscall.ESHUTDOWN},
	Full:        {"full", syscall.ENOSPC},
	Unknown:     {"outcome unknown", syscall.EIO},
	Stale:       {"stale", syscall.ESTALE},
}

// String is the kind in words, for messages.
func (k Kind) String() string {
	if int(k) < len(kindTable) {
		return kindTable[k].name
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Errno is what the kernel, and so a program, is told for this kind.
func (k Kind) Errno() syscall.Errno {
	if int(k) < len(kindTable) {
		return kindTable[k].errno
	}
	return syscall.EIO
}

// Error is a failure with the operation, the node it happened on and its kind.
type Error struct {
	Op   string  // what was attempted: "registry put", "onnode"
	Node id.Node // where; 0 when it was here or nowhere in particular
	Kind Kind
	Text string // why, and what to do about it; one line
	Err  error  // the cause on this node; does not cross the wire
}

// New makes an Error with a formatted text; a %w cause is kept.
func New(kind Kind, op string, node id.Node, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Op: op, Node: node, Kind: kind, Text: err.Error(), Err: errors.Unwrap(err)}
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op)
		b.WriteString(": ")
	}
	if e.Node != 0 {
		fmt.Fprintf(&b, "node %d: ", e.Node)
	}
	if e.Text != "" {
		b.WriteString(e.Text)
	} else {
		b.WriteString(e.Kind.String())
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// KindOf is the kind of the first Error in err's chain, or Other.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Other
}

// Is reports whether err is an Error of this kind.
func Is(err error, kind Kind) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == kind
}
