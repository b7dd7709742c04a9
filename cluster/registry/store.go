package registry

import (
	"errors"
	"hash/maphash"

	"google.golang.org/protobuf/proto"

	"ssi/internal/errno"
)

// Store is the replicated state machine. Its owner calls one method at a time.
type Store struct {
	now       View
	leases    map[uint64]*lease
	lastLease uint64
	seed      maphash.Seed
}

// NewStore is an empty registry at revision 0.
func NewStore() *Store {
	return &Store{leases: map[uint64]*lease{}, seed: maphash.MakeSeed()}
}

// View is the present state.
func (s *Store) View() View { return s.now }

// Apply executes an encoded Command and returns the encoded Result. It never
// fails otherwise: what is wrong with the command is told in the result. The
// index of the command in the consensus log does not matter to the state.
func (s *Store) Apply(_ uint64, cmd []byte) []byte {
	res := &Result{}
	if err := s.apply(cmd, res); err != nil {
		res = &Result{Failure: failureOf(err)}
	}
	res.Revision = s.now.rev
	b, err := proto.Marshal(res)
	if err != nil { // only a text that is not UTF-8 can do that
		b, _ = proto.Marshal(&Result{Revision: s.now.rev, Failure: &Failure{Kind: uint32(errno.Invalid), Text: "bad command"}})
	}
	return b
}

func (s *Store) apply(b []byte, res *Result) error {
	if len(b) > MaxCommand {
		return errno.New(errno.Invalid, "registry", 0, "the command has %d bytes, the limit is %d", len(b), MaxCommand)
	}
	var c Command
	if err := proto.Unmarshal(b, &c); err != nil {
		return errno.New(errno.Invalid, "registry", 0, "the command cannot be read")
	}
	switch k := c.Kind.(type) {
	case *Command_Txn:
		return withOp("registry write", s.txn(k.Txn, c.System, res))
	case *Command_Grant:
		return withOp("lease grant", s.grant(k.Grant, res))
	case *Command_Renew:
		return withOp("lease renew", s.renew(k.Renew))
	case *Command_Revoke:
		return withOp("lease revoke", s.revoke(k.Revoke, res))
	case *Command_Expire:
		return withOp("lease expire", s.expire(k.Expire, res))
	}
	return errno.New(errno.Invalid, "registry", 0, "this version of ssi does not know the command")
}

// withOp says what was attempted in an error that does not.
func withOp(op string, err error) error {
	var e *errno.Error
	if errors.As(err, &e) && e.Op == "" {
		e.Op = op
	}
	return err
}

// change collects the effects of one command, which gets the next revision.
type change struct {
	s      *Store
	rev    uint64
	events []Event
}

func (s *Store) change() *change { return &change{s: s, rev: s.now.rev + 1} }

func (c *change) put(key string, value []byte, leaseID uint64) {
	s := c.s
	e := &Entry{Key: key, Value: value, Create: c.rev, Mod: c.rev, Version: 1, Lease: leaseID}
	if old := treeGet(s.now.root, key); old != nil {
		e.Create, e.Version = old.Create, old.Version+1
		s.now.bytes -= old.size()
		if old.Lease != 0 {
			delete(s.leases[old.Lease].keys, key)
		}
	} else {
		s.now.count++
	}
	if leaseID != 0 {
		s.leases[leaseID].keys[key] = struct{}{}
	}
	s.now.bytes += e.size()
	s.now.root = treePut(s.now.root, e, priority(s.seed, key))
	c.events = append(c.events, Event{Key: key, Revision: c.rev, Entry: e})
}

// remove takes out an entry that is there.
func (c *change) remove(e *Entry) {
	s := c.s
	if e.Lease != 0 {
		delete(s.leases[e.Lease].keys, e.Key)
	}
	s.now.bytes -= e.size()
	s.now.count--
	s.now.root = treeDelete(s.now.root, e.Key)
	c.events = append(c.events, Event{Key: e.Key, Revision: c.rev})
}

// commit makes the revision the store's if anything changed.
func (c *change) commit() {
	if len(c.events) == 0 {
		return
	}
	c.s.now.rev = c.rev
	c.s.now.log.add(c.events)
}
