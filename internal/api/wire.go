// Package api is the protocol between the commands and the node daemon of
// their own machine.
//
// It is the varlink protocol (https://varlink.org): JSON objects that end in a
// NUL byte over a unix stream socket, one call at a time, with streams ("more")
// and protocol upgrades. `varlinkctl call /run/ssi/ssi.sock ssi.cluster.Status`
// works. A call names its method as INTERFACE.METHOD; errors carry the fields
// of errno.Error.
//
// The server answers each connection in a goroutine of its own and Close waits
// for all of them. Who calls is told by the kernel (SO_PEERCRED), never by the
// caller; each handler decides who may.
//
// Limits: MaxMessage bytes a message, MaxConns connections; a call over either
// is refused, a caller that does not read is dropped after WriteTimeout.
//
// The package holds the parameter types of all methods, a file per subsystem,
// and must never import a subsystem.
package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"ssi/internal/errno"
	"ssi/internal/id"
)

const (
	// Socket is where the node daemon listens.
	Socket = "/run/ssi/ssi.sock"
	// SocketEnv names the variable that overrides Socket for the commands.
	SocketEnv = "SSI_SOCKET"

	// MaxMessage is the size limit of one message in bytes.
	MaxMessage = 8 << 20
	// MaxConns is how many connections the server serves at once.
	MaxConns = 1024
	// WriteTimeout is how long the server waits for a caller that does not
	// read its replies.
	WriteTimeout = 10 * time.Second
)

// call is a request on the wire.
type call struct {
	Method     string          `json:"method"`
	Parameters json.RawMessage `json:"parameters,omitempty"`
	More       bool            `json:"more,omitempty"`
	Upgrade    bool            `json:"upgrade,omitempty"`
}

// reply is an answer on the wire.
type reply struct {
	Parameters json.RawMessage `json:"parameters,omitempty"`
	Continues  bool            `json:"continues,omitempty"`
	Error      string          `json:"error,omitempty"`
}

// failure is the parameters of an error reply.
type failure struct {
	Op   string     `json:"op,omitempty"`
	Node id.Node    `json:"node,omitempty"`
	Kind errno.Kind `json:"kind"`
	Text string     `json:"text,omitempty"`
}

// errorName is the varlink error every failure travels under.
const errorName = "ssi.Error"

func failureOf(err error) failure {
	var e *errno.Error
	switch {
	case !errors.As(err, &e):
		return failure{Text: err.Error()}
	case err.Error() != e.Error(): // wrapped on the way: keep the whole text
		return failure{Kind: e.Kind, Text: err.Error()}
	}
	return failure{Op: e.Op, Node: e.Node, Kind: e.Kind, Text: e.Text}
}

func (f failure) err() error {
	return &errno.Error{Op: f.Op, Node: f.Node, Kind: f.Kind, Text: f.Text}
}

// writeMessage sends v as one message.
func writeMessage(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) >= MaxMessage {
		return fmt.Errorf("message of %d bytes is over the limit of %d", len(b), MaxMessage)
	}
	_, err = w.Write(append(b, 0))
	return err
}

// readMessage reads one message into v. It returns io.EOF if the stream ended
// between messages.
func readMessage(r *bufio.Reader, v any) error {
	var buf []byte
	for {
		part, err := r.ReadSlice(0)
		if len(buf)+len(part) > MaxMessage {
			return fmt.Errorf("message is over the limit of %d bytes", MaxMessage)
		}
		buf = append(buf, part...)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if errors.Is(err, io.EOF) && len(buf) > 0 {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		break
	}
	return json.Unmarshal(bytes.TrimSuffix(buf, []byte{0}), v)
}
