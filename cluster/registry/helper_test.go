package registry

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"ssi/internal/errno"
)

// do applies a command that must succeed.
func do(t testing.TB, s *Store, cmd []byte) *Result {
	t.Helper()
	res, err := DecodeResult(s.Apply(1, cmd))
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// refused applies a command that must fail with a kind and change nothing.
func refused(t testing.TB, s *Store, kind errno.Kind, cmd []byte) error {
	t.Helper()
	before := dump(t, s)
	res, err := DecodeResult(s.Apply(1, cmd))
	if !errno.Is(err, kind) {
		t.Fatalf("got %v, want an error of kind %v", err, kind)
	}
	if res.Revision != s.View().Revision() {
		t.Errorf("the failure tells revision %d of %d", res.Revision, s.View().Revision())
	}
	if after := dump(t, s); after != before {
		t.Fatalf("changed by a refused command: %s\nbefore: %s", after, before)
	}
	return err
}

func txn(t testing.TB, checks []*Compare, ops ...*Op) []byte {
	t.Helper()
	b, err := EncodeTxn(false, checks, ops...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// raw encodes a transaction without the checks of EncodeTxn.
func raw(t testing.TB, checks []*Compare, ops ...*Op) []byte {
	t.Helper()
	b, err := proto.Marshal(&Command{Kind: &Command_Txn{Txn: &Txn{Compare: checks, Op: ops}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t testing.TB, s *Store, key, value string) uint64 {
	t.Helper()
	return do(t, s, txn(t, nil, PutOp(key, []byte(value), 0))).Revision
}

func deletePrefix(t testing.TB, prefix string, limit int) []byte {
	t.Helper()
	b, err := EncodeDeletePrefix(false, prefix, limit)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func keys(entries []*Entry) []string {
	out := []string{}
	for _, e := range entries {
		out = append(out, e.Key)
	}
	return out
}

// dump is the whole state as text.
func dump(t testing.TB, s *Store) string {
	t.Helper()
	all, _, err := s.View().List("", 0, "")
	if err != nil {
		t.Fatal(err)
	}
	n, size := s.View().Keys()
	out := fmt.Sprintf("rev %d keys %d bytes %d last lease %d %v", s.View().Revision(), n, size, s.lastLease, s.Leases())
	for _, e := range all {
		out += fmt.Sprintf("\n%s=%q %d %d %d %d", e.Key, e.Value, e.Create, e.Mod, e.Version, e.Lease)
	}
	return out
}

func restored(t testing.TB, s *Store) *Store {
	t.Helper()
	b, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	out := NewStore()
	if err := out.Restore(b); err != nil {
		t.Fatal(err)
	}
	return out
}
