package ics

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"ssi/cluster/ics/icspb"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// codeOf is the gRPC code for a kind. Ours is in the details; the code serves
// tools that know only gRPC.
func codeOf(k errno.Kind) codes.Code {
	switch k {
	case errno.Invalid:
		return codes.InvalidArgument
	case errno.NotFound:
		return codes.NotFound
	case errno.Exists:
		return codes.AlreadyExists
	case errno.Permission:
		return codes.PermissionDenied
	case errno.Unavailable, errno.NoQuorum:
		return codes.Unavailable
	case errno.Timeout:
		return codes.DeadlineExceeded
	case errno.Fenced, errno.Stale:
		return codes.FailedPrecondition
	case errno.Full:
		return codes.ResourceExhausted
	default:
		return codes.Unknown
	}
}

// toStatus is how a handler's error leaves this node. Statuses pass unchanged.
func toStatus(err error, self id.Node) error {
	if err == nil {
		return nil
	}
	var e *errno.Error
	if !errors.As(err, &e) {
		if _, ok := status.FromError(err); ok {
			return err
		}
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			return status.FromContextError(err).Err() // the caller's end has words for it
		}
		e = &errno.Error{Kind: errno.Other, Text: err.Error()}
	}
	wire := &icspb.Error{Op: e.Op, Node: uint32(e.Node), Kind: uint32(e.Kind), Text: strings.ToValidUTF8(e.Text, "?")}
	if e.Node == 0 {
		wire.Node = uint32(self)
	}
	s, serr := status.New(codeOf(e.Kind), wire.Text).WithDetails(wire)
	if serr != nil {
		return status.Error(codeOf(e.Kind), wire.Text)
	}
	return s.Err()
}

// fromStatus is how the error of a call reaches the caller: as *errno.Error,
// with the peer's words if it sent any.
func (p *peer) fromStatus(err error, method string, l *life) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	op := opOf(method)
	if l.ctx.Err() != nil {
		return withOp(context.Cause(l.ctx), op, p.node)
	}
	s := status.Convert(err)
	for _, d := range s.Details() {
		if e, ok := d.(*icspb.Error); ok {
			if e.GetOp() != "" {
				op = e.GetOp()
			}
			return &errno.Error{Op: op, Node: id.Node(e.GetNode()), Kind: errno.Kind(e.GetKind()), Text: oneLine([]byte(e.GetText())), Err: err}
		}
	}
	e := &errno.Error{Op: op, Node: p.node, Kind: errno.Other, Text: oneLine([]byte(s.Message())), Err: err}
	switch s.Code() {
	case codes.Unavailable:
		e.Kind = errno.Unavailable
		if why := p.dialErr.Load(); why != nil {
			return withOp(*why, op, p.node)
		}
		e.Text = "connection lost: " + e.Text
	case codes.DeadlineExceeded:
		e.Kind, e.Text = errno.Timeout, "no answer in time"
		e.Err = context.DeadlineExceeded
	case codes.Canceled:
		e.Kind, e.Text = errno.Unavailable, "the call was cancelled"
		e.Err = context.Canceled
	case codes.ResourceExhausted:
		e.Kind = errno.Full
	case codes.Unimplemented:
		e.Kind, e.Text = errno.NotFound, "does not know this call: another version?"
	}
	return e
}

// withOp gives an error the operation it belongs to.
func withOp(err error, op string, n id.Node) error {
	var e *errno.Error
	if errors.As(err, &e) {
		return &errno.Error{Op: op, Node: e.Node, Kind: e.Kind, Text: e.Text, Err: err}
	}
	return errno.New(errno.Unavailable, op, n, "%w", err)
}

// opOf is the last part of a gRPC method's name.
func opOf(method string) string { return method[strings.LastIndexByte(method, '/')+1:] }
