package registry

import (
	"errors"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// Check is a comparison of a transaction: key was last changed at the revision
// (0: key does not exist).
func Check(key string, revision uint64) *Compare {
	return &Compare{Key: key, Revision: revision}
}

// PutOp writes a key; lease is the lease it hangs on, or 0.
func PutOp(key string, value []byte, lease uint64) *Op {
	return &Op{Kind: &Op_Put{Put: &Put{Key: key, Value: value, Lease: lease}}}
}

// DeleteOp removes a key if it is there.
func DeleteOp(key string) *Op {
	return &Op{Kind: &Op_Delete{Delete: &Delete{Key: key}}}
}

// EncodeTxn makes the command that executes ops if all checks hold. system
// permits keys below /sys. It reports at once what every state would refuse:
// the error is of kind errno.Invalid.
func EncodeTxn(system bool, checks []*Compare, ops ...*Op) ([]byte, error) {
	for _, c := range checks {
		if err := CheckKey(c.Key); err != nil {
			return nil, withOp("registry write", err)
		}
	}
	for _, op := range ops {
		if op.GetDeletePrefix() != nil {
			continue
		}
		key := opKey(op)
		if err := CheckKey(key); err != nil {
			return nil, withOp("registry write", err)
		}
		if n := len(op.GetPut().GetValue()); n > MaxValue {
			return nil, errno.New(errno.Invalid, "registry write", 0, "the value of %s has %d bytes, the limit is %d", key, n, MaxValue)
		}
	}
	return encode(&Command{System: system, Kind: &Command_Txn{Txn: &Txn{Compare: checks, Op: ops}}})
}

// opKey is the key of a put or a delete.
func opKey(op *Op) string {
	if d := op.GetDelete(); d != nil {
		return d.Key
	}
	return op.GetPut().GetKey()
}

// EncodeDeletePrefix makes the command that removes at most limit keys under
// prefix (0: MaxDelete). Result.More tells that some are left.
func EncodeDeletePrefix(system bool, prefix string, limit int) ([]byte, error) {
	if err := CheckPrefix(prefix); err != nil {
		return nil, withOp("registry write", err)
	}
	op := &DeletePrefix{Prefix: prefix, Limit: uint32(min(max(limit, 0), MaxDelete))}
	return EncodeTxn(system, nil, &Op{Kind: &Op_DeletePrefix{DeletePrefix: op}})
}

// EncodeGrant makes the command that grants a lease; Result.Lease is its ID.
// ttl counts in whole milliseconds.
func EncodeGrant(owner id.Node, ttl time.Duration) []byte {
	return mustEncode(&Command{Kind: &Command_Grant{Grant: &LeaseGrant{Owner: uint32(owner), TtlMs: uint64(max(ttl, 0).Milliseconds())}}})
}

// EncodeRenew makes the command that renews a lease.
func EncodeRenew(lease uint64) []byte {
	return mustEncode(&Command{Kind: &Command_Renew{Renew: &LeaseRenew{Id: lease}}})
}

// EncodeRevoke makes the command that ends a lease and removes its keys.
func EncodeRevoke(lease uint64) []byte {
	return mustEncode(&Command{Kind: &Command_Revoke{Revoke: &LeaseRevoke{Id: lease}}})
}

// EncodeExpire makes the command that ends a lease if it was not renewed since
// it had this count of renewals.
func EncodeExpire(lease, renewals uint64) []byte {
	return mustEncode(&Command{Kind: &Command_Expire{Expire: &LeaseExpire{Id: lease, Renewals: renewals}}})
}

func encode(c *Command) ([]byte, error) {
	b, err := proto.Marshal(c)
	if err != nil {
		return nil, errno.New(errno.Invalid, "registry", 0, "cannot encode the command: %w", err)
	}
	if len(b) > MaxCommand {
		return nil, errno.New(errno.Invalid, "registry", 0, "the command has %d bytes, the limit is %d", len(b), MaxCommand)
	}
	return b, nil
}

// mustEncode encodes commands without strings, which always can be.
func mustEncode(c *Command) []byte {
	b, err := encode(c)
	if err != nil {
		panic(err)
	}
	return b
}

// ConflictError is a comparison that did not hold: the key's revision is
// another one (0: it does not exist). Its kind is errno.Exists.
type ConflictError struct {
	Cause    *errno.Error
	Key      string
	Revision uint64
}

func (e *ConflictError) Error() string { return e.Cause.Error() }
func (e *ConflictError) Unwrap() error { return e.Cause }

// DecodeResult reads what Apply returned. The error is the command's failure,
// an *errno.Error or a *ConflictError around one; the result's revision is then
// still that of the store.
func DecodeResult(b []byte) (*Result, error) {
	res := &Result{}
	if err := proto.Unmarshal(b, res); err != nil {
		return nil, errno.New(errno.Other, "registry", 0, "the result cannot be read: %w", err)
	}
	f := res.Failure
	if f == nil {
		return res, nil
	}
	kind := errno.Other
	if f.Kind <= 0xff {
		kind = errno.Kind(f.Kind)
	}
	e := &errno.Error{Op: f.Op, Kind: kind, Text: f.Text}
	if f.Key != "" {
		return res, &ConflictError{Cause: e, Key: f.Key, Revision: f.Revision}
	}
	return res, e
}

// failureOf is an error as it is stored in a Result.
func failureOf(err error) *Failure {
	f := &Failure{Kind: uint32(errno.KindOf(err)), Text: err.Error()}
	var e *errno.Error
	if errors.As(err, &e) {
		f.Op, f.Text = e.Op, e.Text
	}
	var c *ConflictError
	if errors.As(err, &c) {
		f.Key, f.Revision = c.Key, c.Revision
	}
	f.Text = strings.ToValidUTF8(f.Text, "?")
	return f
}
