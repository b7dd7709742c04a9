package registry

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"ssi/internal/id"
)

// format is the version of the snapshot's layout.
const format = 1

// The field numbers of message State, which is too big to be built in memory.
const (
	stateLease = 6
	stateEntry = 7
	stateEnd   = 8
)

// Snapshot encodes the state. The events for watchers are not part of it.
func (s *Store) Snapshot() ([]byte, error) {
	v := s.now
	head := &State{
		Format: format, Revision: v.rev, LastLease: s.lastLease,
		Entries: uint64(v.count), Leases: uint64(len(s.leases)),
	}
	// 64: tags, lengths and six numbers of an entry, mostly less.
	b := make([]byte, 0, int(v.bytes)+64*(v.count+len(s.leases)+1))
	opt := proto.MarshalOptions{Deterministic: true}
	b, err := opt.MarshalAppend(b, head)
	if err != nil {
		return nil, fmt.Errorf("registry snapshot: %w", err)
	}
	for _, n := range slices.Sorted(maps.Keys(s.leases)) {
		l := s.leases[n]
		m, err := opt.Marshal(&LeaseState{Id: n, Owner: uint32(l.owner), TtlMs: l.ttl, Renewals: l.renewals})
		if err != nil {
			return nil, fmt.Errorf("registry snapshot: %w", err)
		}
		b = protowire.AppendTag(b, stateLease, protowire.BytesType)
		b = protowire.AppendBytes(b, m)
	}
	var m []byte
	v.ascend("", "", func(e *Entry) bool {
		m = appendEntry(m[:0], e)
		b = protowire.AppendTag(b, stateEntry, protowire.BytesType)
		b = protowire.AppendBytes(b, m)
		return true
	})
	return protowire.AppendVarint(protowire.AppendTag(b, stateEnd, protowire.VarintType), 1), nil
}

// appendEntry appends e as an EntryState; readEntry is the reverse. Both do
// without the message: there may be MaxKeys of them.
func appendEntry(b []byte, e *Entry) []byte {
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendString(b, e.Key)
	if len(e.Value) > 0 {
		b = protowire.AppendTag(b, 2, protowire.BytesType)
		b = protowire.AppendBytes(b, e.Value)
	}
	for i, n := range [...]uint64{e.Create, e.Mod, e.Version, e.Lease} {
		if n > 0 {
			b = protowire.AppendTag(b, protowire.Number(3+i), protowire.VarintType)
			b = protowire.AppendVarint(b, n)
		}
	}
	return b
}

// Restore replaces the state by a snapshot's. After an error the state is what
// it was. Watchers find that the history before it is compacted.
func (s *Store) Restore(snapshot []byte) error {
	r := restore{store: NewStore()}
	if err := r.read(snapshot); err != nil {
		return fmt.Errorf("registry snapshot: %w", err)
	}
	*s = *r.store
	return nil
}

// restore builds a store out of untrusted bytes.
type restore struct {
	store *Store
	head  State
	tree  treeBuilder
	last  string // the key before
}

func (r *restore) read(b []byte) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("cannot be read: %w", protowire.ParseError(n))
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return fmt.Errorf("cannot be read: %w", protowire.ParseError(n))
		}
		if err := r.field(num, typ, b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return r.finish()
}

func (r *restore) field(num protowire.Number, typ protowire.Type, b []byte) error {
	switch {
	case typ == protowire.VarintType:
		v, _ := protowire.ConsumeVarint(b)
		switch num {
		case 1:
			if v != format {
				return fmt.Errorf("has format %d, this version of ssi reads %d", v, format)
			}
			r.head.Format = format
		case 2:
			r.head.Revision = v
		case 3:
			r.head.LastLease = v
		case 4:
			r.head.Entries = v
		case 5:
			r.head.Leases = v
		case stateEnd:
			r.head.End = v == 1
		}
	case typ == protowire.BytesType && num == stateLease:
		m, _ := protowire.ConsumeBytes(b)
		var l LeaseState
		if err := proto.Unmarshal(m, &l); err != nil {
			return fmt.Errorf("has a bad lease: %w", err)
		}
		return r.lease(&l)
	case typ == protowire.BytesType && num == stateEntry:
		m, _ := protowire.ConsumeBytes(b)
		e, err := readEntry(m)
		if err != nil {
			return fmt.Errorf("has a bad entry: %w", err)
		}
		return r.entry(e)
	}
	return nil
}

func (r *restore) lease(l *LeaseState) error {
	switch {
	case l.Id == 0 || l.Id > r.head.LastLease:
		return fmt.Errorf("has a lease %d, the last is %d", l.Id, r.head.LastLease)
	case r.store.leases[l.Id] != nil:
		return fmt.Errorf("has lease %d twice", l.Id)
	case len(r.store.leases) >= MaxLeases:
		return fmt.Errorf("has over %d leases", MaxLeases)
	case !validTTL(l.TtlMs) || l.Owner > math.MaxUint16 || !id.Node(l.Owner).Valid():
		return fmt.Errorf("has a bad lease %d", l.Id)
	}
	r.store.leases[l.Id] = &lease{owner: id.Node(l.Owner), ttl: l.TtlMs, renewals: l.Renewals, keys: map[string]struct{}{}}
	return nil
}

func (r *restore) entry(e *Entry) error {
	now := &r.store.now
	if err := CheckKey(e.Key); err != nil {
		return err
	}
	switch {
	case e.Key <= r.last:
		return fmt.Errorf("key %q comes after %q", e.Key, r.last)
	case len(e.Value) > MaxValue:
		return fmt.Errorf("the value of %s has %d bytes, the limit is %d", e.Key, len(e.Value), MaxValue)
	case e.Create == 0 || e.Version == 0 || e.Create > e.Mod || e.Mod > r.head.Revision || e.Version-1 > e.Mod-e.Create:
		return fmt.Errorf("%s has impossible revisions %d, %d, version %d of %d", e.Key, e.Create, e.Mod, e.Version, r.head.Revision)
	case now.count >= MaxKeys:
		return fmt.Errorf("has over %d keys", MaxKeys)
	case now.bytes+e.size() > MaxTotal:
		return fmt.Errorf("has over %d bytes", MaxTotal)
	}
	if e.Lease != 0 {
		l := r.store.leases[e.Lease]
		if l == nil || len(l.keys) >= MaxLeaseKeys {
			return fmt.Errorf("%s hangs on lease %d, which is not there or full", e.Key, e.Lease)
		}
		l.keys[e.Key] = struct{}{}
	}
	r.last = e.Key
	r.tree.add(e, priority(r.store.seed, e.Key))
	now.count++
	now.bytes += e.size()
	return nil
}

func (r *restore) finish() error {
	s := r.store
	switch {
	case r.head.Format != format:
		return fmt.Errorf("is not one of the registry")
	case !r.head.End:
		return fmt.Errorf("is cut off")
	case uint64(s.now.count) != r.head.Entries || uint64(len(s.leases)) != r.head.Leases:
		return fmt.Errorf("has %d keys and %d leases, it should have %d and %d",
			s.now.count, len(s.leases), r.head.Entries, r.head.Leases)
	}
	s.lastLease = r.head.LastLease
	s.now.rev = r.head.Revision
	s.now.root = r.tree.root()
	s.now.log.lost = r.head.Revision
	return nil
}

// readEntry decodes an EntryState. The value is copied, so that the snapshot can
// be freed.
func readEntry(b []byte) (*Entry, error) {
	e := &Entry{}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return nil, protowire.ParseError(n)
		}
		switch typ {
		case protowire.BytesType:
			v, _ := protowire.ConsumeBytes(b)
			switch num {
			case 1:
				if !utf8.Valid(v) {
					return nil, fmt.Errorf("key %q is not UTF-8", v)
				}
				e.Key = string(v)
			case 2:
				e.Value = append([]byte(nil), v...)
			}
		case protowire.VarintType:
			v, _ := protowire.ConsumeVarint(b)
			switch num {
			case 3:
				e.Create = v
			case 4:
				e.Mod = v
			case 5:
				e.Version = v
			case 6:
				e.Lease = v
			}
		}
		b = b[n:]
	}
	return e, nil
}
