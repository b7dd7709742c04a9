package registry

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"ssi/internal/errno"
)

// model is the plainest registry that can be thought of.
type model struct {
	rev     uint64
	entries []Entry // in no order
	leases  map[uint64]uint64
	last    uint64
}

func (m *model) find(key string) int {
	return slices.IndexFunc(m.entries, func(e Entry) bool { return e.Key == key })
}

func (m *model) modOf(key string) uint64 {
	if i := m.find(key); i >= 0 {
		return m.entries[i].Mod
	}
	return 0
}

func (m *model) drop(which func(Entry) bool) (n int) {
	before := len(m.entries)
	m.entries = slices.DeleteFunc(m.entries, which)
	return before - len(m.entries)
}

func (m *model) write(key, value string, lease, rev uint64) {
	e := Entry{Key: key, Value: []byte(value), Create: rev, Mod: rev, Version: 1, Lease: lease}
	if i := m.find(key); i >= 0 {
		e.Create, e.Version = m.entries[i].Create, m.entries[i].Version+1
		m.entries[i] = e
		return
	}
	m.entries = append(m.entries, e)
}

func (m *model) text() string {
	es := slices.Clone(m.entries)
	slices.SortFunc(es, func(a, b Entry) int { return strings.Compare(a.Key, b.Key) })
	out := fmt.Sprint("rev ", m.rev)
	for _, e := range es {
		out += fmt.Sprintf("\n%s=%q %d %d %d %d", e.Key, e.Value, e.Create, e.Mod, e.Version, e.Lease)
	}
	return out
}

func viewText(t testing.TB, v View) string {
	t.Helper()
	all, _, err := v.List("", 0, "")
	if err != nil {
		t.Fatal(err)
	}
	out := fmt.Sprint("rev ", v.Revision())
	size := int64(0)
	for _, e := range all {
		out += fmt.Sprintf("\n%s=%q %d %d %d %d", e.Key, e.Value, e.Create, e.Mod, e.Version, e.Lease)
		size += e.size()
	}
	if n, b := v.Keys(); n != len(all) || b != size {
		t.Fatalf("%d keys of %d bytes, counted as %d of %d", len(all), size, n, b)
	}
	return out
}

// TestModel compares random commands with the model; and a second store that
// gets the same commands, but is snapshot and restored now and then; and old
// views with what they were; and a follower that only sees events.
func TestModel(t *testing.T) {
	seeds := uint64(40)
	if slow {
		seeds = 5
	}
	t.Logf("%d seeds", seeds)
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runModel(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

func runModel(t *testing.T, rnd *rand.Rand) {
	s, twin := NewStore(), NewStore()
	m := &model{leases: map[uint64]uint64{}}
	follower := map[string]*Entry{}
	var seen uint64
	var old View
	oldText := viewText(t, old)

	key := func() string {
		k := fmt.Sprintf("/%c", 'a'+rnd.IntN(4))
		if rnd.IntN(2) == 0 {
			k += fmt.Sprintf("/%c", 'a'+rnd.IntN(4))
		}
		return k
	}
	for range 400 {
		cmd, want, kind := m.random(t, rnd, key)
		got := s.Apply(1, cmd)
		if other := twin.Apply(9, cmd); !bytes.Equal(got, other) {
			t.Fatalf("two stores answer %x and %x", got, other)
		}
		res, err := DecodeResult(got)
		if (err != nil) != (kind != errno.Other) || err != nil && errno.KindOf(err) != kind {
			t.Fatalf("got %v, want kind %v", err, kind)
		}
		want.Revision = m.rev
		res.Failure = nil
		if !proto.Equal(res, want) {
			t.Fatalf("result %v, want %v", res, want)
		}
		if got := viewText(t, s.View()); got != m.text() {
			t.Fatalf("got %s\nwant %s", got, m.text())
		}
		for _, e := range mustEvents(t, s.View(), seen) {
			if e.Revision <= seen && e.Revision != s.View().Revision() {
				t.Fatalf("event of revision %d after %d", e.Revision, seen)
			}
			seen = e.Revision
			if follower[e.Key] = e.Entry; e.Entry == nil {
				delete(follower, e.Key)
			}
		}
		if len(follower) != len(m.entries) {
			t.Fatalf("follower has %d keys of %d", len(follower), len(m.entries))
		}
		if rnd.IntN(20) == 0 {
			if got := viewText(t, old); got != oldText {
				t.Fatalf("an old view changed to %s\nfrom %s", got, oldText)
			}
			old, oldText = s.View(), m.text()
		}
		if rnd.IntN(20) == 0 {
			twin = restored(t, twin)
			a, errA := s.Snapshot()
			b, errB := twin.Snapshot()
			if errA != nil || errB != nil || !bytes.Equal(a, b) {
				t.Fatalf("two stores make different snapshots: %v %v", errA, errB)
			}
		}
	}
	for k, e := range follower {
		if now, err := s.View().Get(k); err != nil || now != e {
			t.Errorf("%s: follower has %v, the store %v", k, e, now)
		}
	}
}

func mustEvents(t testing.TB, v View, after uint64) []Event {
	t.Helper()
	events, err := v.Events(after, 0)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

// random makes a command, executes it in the model, and tells the result and
// the kind of failure (errno.Other: none).
func (m *model) random(t *testing.T, rnd *rand.Rand, key func() string) (cmd []byte, want *Result, kind errno.Kind) {
	want = &Result{}
	lease := uint64(0)
	if m.last > 0 {
		lease = 1 + rnd.Uint64N(m.last)
	}
	_, alive := m.leases[lease]
	switch rnd.IntN(12) {
	case 0:
		m.last++
		m.leases[m.last] = 0
		want.Lease = m.last
		return EncodeGrant(3, time.Second), want, errno.Other
	case 1:
		if !alive {
			return EncodeRenew(lease), want, errno.NotFound
		}
		m.leases[lease]++
		return EncodeRenew(lease), want, errno.Other
	case 2:
		renewals := rnd.Uint64N(2)
		cmd := EncodeExpire(lease, renewals)
		if rnd.IntN(2) == 0 {
			cmd, renewals = EncodeRevoke(lease), m.leases[lease]
		}
		if !alive {
			return cmd, want, errno.NotFound
		}
		if m.leases[lease] != renewals {
			return cmd, want, errno.Stale
		}
		delete(m.leases, lease)
		if n := m.drop(func(e Entry) bool { return e.Lease == lease }); n > 0 {
			m.rev++
			want.Deleted = uint64(n)
		}
		return cmd, want, errno.Other
	case 3:
		prefix := key()
		if rnd.IntN(2) == 0 {
			prefix += "/"
		}
		if n := m.drop(func(e Entry) bool { return Under(prefix, e.Key) }); n > 0 {
			m.rev++
			want.Deleted = uint64(n)
		}
		return deletePrefix(t, prefix, 0), want, errno.Other
	}
	// A transaction; with one key it is a put, a delete or a compare and swap.
	var checks []*Compare
	var ops []*Op
	var effects []func()
	kind = errno.Other
	for range rnd.IntN(3) {
		k, rev := key(), uint64(0)
		if rev = m.modOf(k); rnd.IntN(4) == 0 {
			rev = rnd.Uint64N(m.rev + 2)
		}
		if rev != m.modOf(k) {
			kind = errno.Exists
		}
		checks = append(checks, Check(k, rev))
	}
	used := map[string]bool{}
	deleted := uint64(0)
	for i := range 1 + rnd.IntN(3) {
		k := key()
		if used[k] {
			continue
		}
		used[k] = true
		if rnd.IntN(3) == 0 {
			ops = append(ops, DeleteOp(k))
			if m.find(k) >= 0 {
				deleted++
				effects = append(effects, func() { m.drop(func(e Entry) bool { return e.Key == k }) })
			}
			continue
		}
		on := uint64(0)
		if rnd.IntN(3) == 0 && lease != 0 {
			on = lease
			if !alive && kind == errno.Other {
				kind = errno.NotFound
			}
		}
		value := fmt.Sprint(m.rev, ".", i)
		ops = append(ops, PutOp(k, []byte(value), on))
		rev := m.rev + 1
		effects = append(effects, func() { m.write(k, value, on, rev) })
	}
	if kind == errno.Other {
		for _, f := range effects {
			f()
		}
		if len(effects) > 0 {
			m.rev++
		}
		want.Deleted = deleted
	}
	return txn(t, checks, ops...), want, kind
}
