package ics

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"ssi/cluster/ics/icspb"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// toWire is how a handler's error leaves this node.
func toWire(err error, self id.Node) *icspb.Error {
	var e *errno.Error
	switch {
	case errors.As(err, &e):
	case errors.Is(err, context.DeadlineExceeded):
		e = &errno.Error{Kind: errno.Timeout, Text: noAnswer}
	case errors.Is(err, context.Canceled):
		e = &errno.Error{Kind: errno.Unavailable, Text: cancelled}
	default:
		e = &errno.Error{Kind: errno.Other, Text: err.Error()}
	}
	text := e.Text[:min(len(e.Text), maxErrorText)]
	wire := &icspb.Error{Op: strings.ToValidUTF8(e.Op, "?"), Node: uint32(e.Node), Kind: uint32(e.Kind), Text: strings.ToValidUTF8(text, "?")}
	if e.Node == 0 {
		wire.Node = uint32(self)
	}
	return wire
}

const (
	noAnswer  = "no answer in time"
	cancelled = "the call was cancelled"
)

// fromWire is an error as the peer sent it.
func fromWire(b []byte, peer id.Node) *errno.Error {
	var w icspb.Error
	if err := proto.Unmarshal(b, &w); err != nil {
		return errno.New(errno.Other, "", peer, "failed, and says so in words this node does not know: another version?")
	}
	e := &errno.Error{Op: oneLine([]byte(w.GetOp())), Node: id.Node(w.GetNode()), Kind: errno.Kind(w.GetKind()), Text: oneLine([]byte(w.GetText()))}
	if uint32(e.Kind) != w.GetKind() {
		e.Kind = errno.Other
	}
	if uint32(e.Node) != w.GetNode() {
		e.Node = peer
	}
	if e.Kind == errno.Timeout {
		e.Err = context.DeadlineExceeded
	}
	return e
}

// contextError is why a call ended whose context did.
func contextError(err error, n id.Node) *errno.Error {
	if errors.Is(err, context.DeadlineExceeded) {
		return &errno.Error{Node: n, Kind: errno.Timeout, Text: noAnswer, Err: context.DeadlineExceeded}
	}
	return &errno.Error{Node: n, Kind: errno.Unavailable, Text: cancelled, Err: context.Canceled}
}

func unknownCall(self id.Node, method string) error {
	return errno.New(errno.NotFound, "", self, "does not know the call %s: another version?", oneLine([]byte(method)))
}

// explainCall gives the error of a call the operation it belongs to, and the
// end of the peer's life as its reason if that came first.
func (p *peer) explainCall(err error, method string, l *life) error {
	if l.ctx.Err() != nil {
		err = context.Cause(l.ctx)
	}
	var e *errno.Error
	if errors.As(err, &e) && e.Op != "" {
		return err
	}
	return withOp(err, opOf(method), p.node)
}

// withOp gives an error the operation it belongs to.
func withOp(err error, op string, n id.Node) error {
	var e *errno.Error
	if errors.As(err, &e) {
		node := e.Node
		if node == 0 {
			node = n
		}
		return &errno.Error{Op: op, Node: node, Kind: e.Kind, Text: e.Text, Err: err}
	}
	return errno.New(errno.Unavailable, op, n, "%w", err)
}

// opOf is the last part of a method's name.
func opOf(method string) string { return method[strings.LastIndexByte(method, '/')+1:] }

func errProtocol(n id.Node, format string, args ...any) error {
	return errno.New(errno.Unavailable, "", n, "breaks the protocol of calls: %s", fmt.Sprintf(format, args...))
}
