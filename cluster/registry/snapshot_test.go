package registry

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"ssi/internal/errno"
)

// sample is a store with something of everything.
func sample(t testing.TB) *Store {
	s := NewStore()
	lease := do(t, s, EncodeGrant(2, time.Second)).Lease
	do(t, s, EncodeGrant(127, MaxTTL))
	do(t, s, EncodeRenew(lease))
	for i := range 20 {
		do(t, s, txn(t, nil, PutOp(fmt.Sprintf("/a/%d", i%7), fmt.Appendf(nil, "value %d", i), lease*uint64(i%2))))
	}
	put(t, s, "/empty", "")
	return s
}

func TestSnapshotIsAState(t *testing.T) {
	s := sample(t)
	b, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	// It is what registry.proto says.
	var m State
	if err := proto.Unmarshal(b, &m); err != nil || len(m.Entry) != 8 || len(m.Lease) != 2 {
		t.Fatalf("%v, %v", &m, err)
	}
	if got, want := dump(t, restored(t, s)), dump(t, s); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if got := dump(t, restored(t, NewStore())); got != dump(t, NewStore()) {
		t.Errorf("empty store: %s", got)
	}
}

func TestRestoreRefuses(t *testing.T) {
	good := func() *State {
		return &State{Format: 1, Revision: 9, LastLease: 3, Entries: 2, Leases: 1, End: true,
			Lease: []*LeaseState{{Id: 2, Owner: 1, TtlMs: 1000}},
			Entry: []*EntryState{{Key: "/a", Create: 1, Mod: 2, Version: 2, Lease: 2}, {Key: "/b", Create: 9, Mod: 9, Version: 1}}}
	}
	s := sample(t)
	before := dump(t, s)
	try := func(change func(*State)) error {
		m := good()
		change(m)
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return s.Restore(b)
	}
	for name, change := range map[string]func(*State){
		"format":          func(m *State) { m.Format = 2 },
		"no format":       func(m *State) { m.Format = 0 },
		"count":           func(m *State) { m.Entries = 3 },
		"lease count":     func(m *State) { m.Leases = 0 },
		"order":           func(m *State) { m.Entry[0], m.Entry[1] = m.Entry[1], m.Entry[0] },
		"twice":           func(m *State) { m.Entry[1].Key = "/a" },
		"bad key":         func(m *State) { m.Entry[1].Key = "/b/" },
		"future":          func(m *State) { m.Entry[1].Mod = 10 },
		"mod":             func(m *State) { m.Entry[1].Create = 10 },
		"version":         func(m *State) { m.Entry[0].Version = 3 },
		"no version":      func(m *State) { m.Entry[0].Version = 0 },
		"lease missing":   func(m *State) { m.Entry[0].Lease = 1 },
		"future lease":    func(m *State) { m.Lease[0].Id = 4 },
		"lease twice":     func(m *State) { m.Lease = append(m.Lease, m.Lease[0]); m.Leases = 2 },
		"lease owner":     func(m *State) { m.Lease[0].Owner = 1 << 16 },
		"lease life":      func(m *State) { m.Lease[0].TtlMs = 1 },
		"too big a value": func(m *State) { m.Entry[1].Value = make([]byte, MaxValue+1) },
	} {
		if err := try(change); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if got := dump(t, s); got != before {
		t.Errorf("a refused snapshot changed the state to %s", got)
	}
	if err := try(func(*State) {}); err != nil {
		t.Error(err)
	}
	b, _ := sample(t).Snapshot()
	for n := range b {
		if NewStore().Restore(b[:n]) == nil {
			t.Fatalf("the first %d of %d bytes were accepted", n, len(b))
		}
	}
}

func TestFullRegistry(t *testing.T) {
	full := &State{Format: 1, Revision: 1, Entries: MaxKeys, End: true}
	for n := range MaxKeys {
		full.Entry = append(full.Entry, &EntryState{Key: fmt.Sprintf("/k%06d", n), Create: 1, Mod: 1, Version: 1})
	}
	b, err := proto.Marshal(full)
	if err != nil {
		t.Fatal(err)
	}
	s := NewStore()
	if err := s.Restore(b); err != nil {
		t.Fatal(err)
	}
	try := func(kind errno.Kind, ops ...*Op) {
		t.Helper()
		if _, err := DecodeResult(s.Apply(1, txn(t, nil, ops...))); errno.KindOf(err) != kind {
			t.Fatalf("got %v, want kind %v", err, kind)
		}
	}
	try(errno.Full, PutOp("/one/more", nil, 0))
	try(errno.Other, PutOp("/k000005", []byte("changed"), 0))
	try(errno.Other, DeleteOp("/k000006"), PutOp("/one/more", nil, 0))
	try(errno.Full, DeleteOp("/k000007"), PutOp("/two/more", nil, 0), PutOp("/three/more", nil, 0))
	snap, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	r := NewStore()
	if err := r.Restore(snap); err != nil {
		t.Fatal(err)
	}
	if again, err := r.Snapshot(); err != nil || !bytes.Equal(snap, again) {
		t.Errorf("restored differently: %v", err)
	}
	if res := do(t, s, deletePrefix(t, "/k000001", 0)); res.Deleted != 1 {
		t.Error(res)
	}

	s = NewStore()
	value := make([]byte, MaxValue)
	for i := 0; ; i++ {
		if n, b := s.View().Keys(); b > MaxTotal || n > MaxTotal/MaxValue {
			t.Fatalf("%d keys of %d bytes", n, b)
		}
		if _, err = DecodeResult(s.Apply(1, txn(t, nil, PutOp(fmt.Sprintf("/v%d", i), value, 0)))); err != nil {
			break
		}
	}
	if !errno.Is(err, errno.Full) {
		t.Error(err)
	}
	try(errno.Other, PutOp("/v0", nil, 0))

	s = NewStore()
	for range MaxLeases {
		do(t, s, EncodeGrant(1, time.Second))
	}
	refused(t, s, errno.Full, EncodeGrant(1, time.Second))
	for i := range MaxLeaseKeys {
		do(t, s, txn(t, nil, PutOp(fmt.Sprintf("/l%d", i), nil, 5)))
	}
	try(errno.Full, PutOp("/l", nil, 5))
	try(errno.Other, PutOp("/l7", nil, 5))
	try(errno.Other, DeleteOp("/l7"), PutOp("/l", nil, 5))
}

func FuzzApply(f *testing.F) {
	s := sample(f)
	base, err := s.Snapshot()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(txn(f, []*Compare{Check("/a/1", 3)}, PutOp("/b", []byte("x"), 1), DeleteOp("/a/2")))
	f.Add(deletePrefix(f, "/a", 2))
	f.Add(EncodeGrant(1, time.Second))
	f.Add(EncodeExpire(1, 1))
	f.Fuzz(func(t *testing.T, cmd []byte) {
		a, b := NewStore(), NewStore()
		if a.Restore(base) != nil || b.Restore(base) != nil {
			t.Fatal("restore")
		}
		if ra, rb := a.Apply(1, cmd), b.Apply(1, cmd); !bytes.Equal(ra, rb) {
			t.Fatalf("%x and %x", ra, rb)
		} else if res, err := DecodeResult(ra); res == nil {
			t.Fatal(err)
		}
		sa, err := a.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Restore(sa); err != nil {
			t.Fatalf("the state after the command cannot be restored: %v", err)
		}
	})
}

func FuzzRestore(f *testing.F) {
	for _, s := range []*Store{sample(f), NewStore()} {
		b, err := s.Snapshot()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := NewStore()
		if s.Restore(b) != nil {
			return
		}
		if got, want := dump(t, restored(t, s)), dump(t, s); got != want {
			t.Fatalf("got %s\nwant %s", got, want)
		}
		viewText(t, s.View())
	})
}

func FuzzResult(f *testing.F) {
	s := NewStore()
	f.Add(s.Apply(1, nil))
	f.Add(s.Apply(1, EncodeGrant(1, time.Second)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if res, err := DecodeResult(b); res == nil && err == nil {
			t.Fatal("neither result nor error")
		}
	})
}

func BenchmarkApply(b *testing.B) {
	for _, keys := range []int{100, 100_000} {
		b.Run(fmt.Sprintf("put/%d", keys), func(b *testing.B) {
			s := NewStore()
			for i := range keys {
				do(b, s, txn(b, nil, PutOp(fmt.Sprintf("/bench/%d", i), make([]byte, 100), 0)))
			}
			cmds := make([][]byte, 1000)
			for i := range cmds {
				cmds[i] = txn(b, nil, PutOp(fmt.Sprintf("/bench/%d", i*7919%keys), make([]byte, 100), 0))
			}
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				s.Apply(1, cmds[i%len(cmds)])
				i++
			}
		})
	}
}

func BenchmarkSnapshot(b *testing.B) {
	s := NewStore()
	for i := range 100_000 {
		do(b, s, txn(b, nil, PutOp(fmt.Sprintf("/bench/%d", i), make([]byte, 100), 0)))
	}
	snap, err := s.Snapshot()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("take", func(b *testing.B) {
		b.SetBytes(int64(len(snap)))
		for b.Loop() {
			if _, err := s.Snapshot(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("restore", func(b *testing.B) {
		b.SetBytes(int64(len(snap)))
		for b.Loop() {
			if err := NewStore().Restore(snap); err != nil {
				b.Fatal(err)
			}
		}
	})
}
