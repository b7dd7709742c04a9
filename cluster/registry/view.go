package registry

import (
	"strings"

	"ssi/internal/errno"
)

// Entry is a key and what is known of it. Entries are shared and must not be
// changed, the bytes of Value included.
type Entry struct {
	Key     string
	Value   []byte
	Create  uint64 // the revision that created it
	Mod     uint64 // the revision that changed it last
	Version uint64 // how often it was written since its creation, from 1
	Lease   uint64 // the lease it hangs on, or 0
}

func (e *Entry) size() int64 { return int64(len(e.Key) + len(e.Value)) }

// View is the registry at one revision. It never changes and may be used by
// any goroutine. The zero View is the empty registry at revision 0.
type View struct {
	root  *node
	count int
	bytes int64
	rev   uint64
	log   eventLog
}

// Revision is the number of the last change, 0 in an empty registry.
func (v View) Revision() uint64 { return v.rev }

// Keys is how many keys there are, and the size of them and their values in
// bytes.
func (v View) Keys() (count int, bytes int64) { return v.count, v.bytes }

// Get finds a key. The error is of kind errno.NotFound or errno.Invalid.
func (v View) Get(key string) (*Entry, error) {
	if e := treeGet(v.root, key); e != nil {
		return e, nil
	}
	if err := CheckKey(key); err != nil {
		return nil, err
	}
	return nil, errno.New(errno.NotFound, "", 0, "no key %s", key)
}

// List returns the entries under prefix in key order, those after the key
// `after` if that is not empty, at most limit of them if limit > 0; more says
// that there are others behind them. The error is of kind errno.Invalid.
func (v View) List(prefix string, limit int, after string) (entries []*Entry, more bool, err error) {
	if err := CheckPrefix(prefix); err != nil {
		return nil, false, err
	}
	v.ascend(prefix, after, func(e *Entry) bool {
		if limit > 0 && len(entries) == limit {
			more = true
			return false
		}
		entries = append(entries, e)
		return true
	})
	return entries, more, nil
}

// ascend yields the entries under a valid prefix after a key.
func (v View) ascend(prefix, after string, yield func(*Entry) bool) {
	if prefix == "" {
		prefix = "/"
	}
	// A key and those below it are not neighbours: "/a", "/a-b", "/a/b".
	below := prefix
	if !strings.HasSuffix(prefix, "/") {
		if e := treeGet(v.root, prefix); e != nil && after < prefix && !yield(e) {
			return
		}
		below += "/"
	}
	from := below
	if after >= from {
		from = after + "\x00"
	}
	treeAscend(v.root, from, func(e *Entry) bool {
		return strings.HasPrefix(e.Key, below) && yield(e)
	})
}

// Events returns the changes after a revision in order, complete revisions
// only, at most about max of them if max > 0 (never parts of a revision). If
// they are not all known any more the error is of kind errno.Stale: list again.
// A revision of the future is of kind errno.Invalid.
func (v View) Events(after uint64, max int) ([]Event, error) {
	if after > v.rev {
		return nil, errno.New(errno.Invalid, "", 0, "revision %d is not there yet, the registry is at %d", after, v.rev)
	}
	return v.log.after(after, max)
}
