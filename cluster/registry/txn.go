package registry

import (
	"ssi/internal/errno"
)

// txn checks everything first and then changes, so that it is all or nothing.
func (s *Store) txn(t *Txn, system bool, res *Result) error {
	if len(t.Op) > MaxOps || len(t.Compare) > MaxOps {
		return errno.New(errno.Invalid, "", 0, "a transaction has at most %d operations and %d comparisons", MaxOps, MaxOps)
	}
	if err := s.compare(t.Compare); err != nil {
		return err
	}
	if len(t.Op) == 1 && t.Op[0].GetDeletePrefix() != nil {
		return s.deletePrefix(t.Op[0].GetDeletePrefix(), system, res)
	}
	if err := s.checkOps(t.Op, system); err != nil {
		return err
	}
	c := s.change()
	for _, op := range t.Op {
		switch k := op.Kind.(type) {
		case *Op_Put:
			c.put(k.Put.Key, k.Put.Value, k.Put.Lease)
		case *Op_Delete:
			if e := treeGet(s.now.root, k.Delete.Key); e != nil {
				c.remove(e)
				res.Deleted++
			}
		}
	}
	c.commit()
	return nil
}

func (s *Store) compare(list []*Compare) error {
	for _, c := range list {
		if err := CheckKey(c.Key); err != nil {
			return err
		}
		var has uint64
		if e := treeGet(s.now.root, c.Key); e != nil {
			has = e.Mod
		}
		if has == c.Revision {
			continue
		}
		var e *errno.Error
		switch {
		case c.Revision == 0:
			e = errno.New(errno.Exists, "", 0, "%s exists already, at revision %d", c.Key, has)
		case has == 0:
			e = errno.New(errno.Exists, "", 0, "%s does not exist (expected revision %d)", c.Key, c.Revision)
		default:
			e = errno.New(errno.Exists, "", 0, "%s is at revision %d, not %d", c.Key, has, c.Revision)
		}
		return &ConflictError{Cause: e, Key: c.Key, Revision: has}
	}
	return nil
}

// checkOps reports why puts and deletes cannot be done as a whole.
func (s *Store) checkOps(ops []*Op, system bool) error {
	count, bytes := s.now.count, s.now.bytes
	seen := make(map[string]struct{}, len(ops))
	onLease := map[uint64]int{} // change of the number of keys of a lease
	for _, op := range ops {
		switch op.Kind.(type) {
		case *Op_Put, *Op_Delete:
		case *Op_DeletePrefix:
			return errno.New(errno.Invalid, "", 0, "the removal of a prefix must be the only operation of its transaction")
		default:
			return errno.New(errno.Invalid, "", 0, "this version of ssi does not know the operation")
		}
		key := opKey(op)
		if err := CheckKey(key); err != nil {
			return err
		}
		if !system && Under(System, key) {
			return errno.New(errno.Permission, "", 0, "%s is below %s, which belongs to ssi itself", key, System)
		}
		if _, twice := seen[key]; twice {
			return errno.New(errno.Invalid, "", 0, "%s occurs twice in one transaction", key)
		}
		seen[key] = struct{}{}

		if old := treeGet(s.now.root, key); old != nil {
			count--
			bytes -= old.size()
			if old.Lease != 0 {
				onLease[old.Lease]--
			}
		}
		if put := op.GetPut(); put != nil {
			if len(put.Value) > MaxValue {
				return errno.New(errno.Invalid, "", 0, "the value of %s has %d bytes, the limit is %d", key, len(put.Value), MaxValue)
			}
			if put.Lease != 0 {
				if s.leases[put.Lease] == nil {
					return noLease(put.Lease)
				}
				onLease[put.Lease]++
			}
			count++
			bytes += int64(len(key) + len(put.Value))
		}
	}
	switch {
	case count > MaxKeys && count > s.now.count:
		return errno.New(errno.Full, "", 0, "the registry is full: %d keys is the limit", MaxKeys)
	case bytes > MaxTotal && bytes > s.now.bytes:
		return errno.New(errno.Full, "", 0, "the registry is full: %d bytes is the limit", MaxTotal)
	}
	for id, n := range onLease {
		if n > 0 && len(s.leases[id].keys)+n > MaxLeaseKeys {
			// Which of several full leases is named must not depend on the
			// order of the map: name none.
			return errno.New(errno.Full, "", 0, "the lease is full: %d keys is the limit", MaxLeaseKeys)
		}
	}
	return nil
}

func (s *Store) deletePrefix(d *DeletePrefix, system bool, res *Result) error {
	if err := CheckPrefix(d.Prefix); err != nil {
		return err
	}
	if !system && touchesSystem(d.Prefix) {
		return errno.New(errno.Permission, "", 0, "%q includes %s, which belongs to ssi itself", d.Prefix, System)
	}
	limit := int(min(d.Limit, MaxDelete))
	if limit == 0 {
		limit = MaxDelete
	}
	victims, more, err := s.now.List(d.Prefix, limit, "")
	if err != nil {
		return err
	}
	c := s.change()
	for _, e := range victims {
		c.remove(e)
	}
	c.commit()
	res.Deleted, res.More = uint64(len(victims)), more
	return nil
}
