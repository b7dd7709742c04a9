package ics

import "context"

type callerKey struct{}

// Caller is who made the call whose handler runs under ctx; the zero Remote
// outside of handlers.
func Caller(ctx context.Context) Remote {
	if r, ok := ctx.Value(callerKey{}).(Remote); ok {
		return r
	}
	return Remote{}
}
