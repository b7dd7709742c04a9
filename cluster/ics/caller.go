package ics

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/grpc/metadata"
	grpcpeer "google.golang.org/grpc/peer"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// headerKey is the metadata by which a call says which life calls, with what
// view, and whom it means: hexadecimal incarnation-epoch-incarnation. It is
// the same for all calls between two views, which HPACK makes one byte.
const headerKey = "ssi-from"

func formatHeader(self id.Incarnation, epoch id.Epoch, to id.Incarnation) string {
	return fmt.Sprintf("%x-%x-%x", uint64(self), uint64(epoch), uint64(to))
}

type callerKey struct{}

// Caller is who made the call whose handler runs under ctx; the zero Remote
// outside of handlers.
func Caller(ctx context.Context) Remote {
	if r, ok := ctx.Value(callerKey{}).(Remote); ok {
		return r
	}
	return Remote{}
}

// callerOf reads who calls: the number from the certificate, the rest from the
// call.
func callerOf(ctx context.Context) (from Remote, to id.Incarnation, err error) {
	p, ok := grpcpeer.FromContext(ctx)
	if !ok {
		return from, 0, errno.New(errno.Permission, "", 0, "call without a connection")
	}
	info, ok := p.AuthInfo.(authInfo)
	if !ok {
		return from, 0, errno.New(errno.Permission, "", 0, "call from nobody")
	}
	from.Node, from.Role = info.c.peer, info.c.role
	h := metadata.ValueFromIncomingContext(ctx, headerKey)
	if len(h) != 1 {
		return from, 0, errno.New(errno.Invalid, "", 0, "call without the header %s", headerKey)
	}
	from.Incarnation, from.Epoch, to, err = parseHeader(h[0])
	return from, to, err
}

func parseHeader(s string) (self id.Incarnation, epoch id.Epoch, to id.Incarnation, err error) {
	fields := strings.SplitN(s, "-", 3)
	var v [3]uint64
	for i := range v {
		if i >= len(fields) {
			return 0, 0, 0, errHeader()
		}
		if v[i], err = strconv.ParseUint(fields[i], 16, 64); err != nil {
			return 0, 0, 0, errHeader()
		}
	}
	return id.Incarnation(v[0]), id.Epoch(v[1]), id.Incarnation(v[2]), nil
}

func errHeader() error {
	return errno.New(errno.Invalid, "", 0, "malformed header %s", headerKey)
}
