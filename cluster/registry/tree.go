package registry

import (
	"cmp"
	"hash/maphash"
)

// node is a node of a persistent treap: a binary search tree by key that is
// also a heap by priority, which keeps it balanced. Nodes never change once
// they are linked, so that an old root stays a complete old tree; a change
// copies the path to the root, about 1.4·log2(n) nodes.
type node struct {
	entry       *Entry
	prio        uint64
	left, right *node
}

// priority draws a key's place in the heap. It is a keyed hash so that nobody
// can choose keys that make the tree degenerate; the shape is not visible
// from outside and so may differ between nodes of the cluster.
func priority(seed maphash.Seed, key string) uint64 { return maphash.String(seed, key) }

// treeGet finds a key.
func treeGet(t *node, key string) *Entry {
	for t != nil {
		switch c := cmp.Compare(key, t.entry.Key); {
		case c < 0:
			t = t.left
		case c > 0:
			t = t.right
		default:
			return t.entry
		}
	}
	return nil
}

// treePut is t with e in it, in place of the entry of the same key if any.
func treePut(t *node, e *Entry, prio uint64) *node {
	if t == nil {
		return &node{entry: e, prio: prio}
	}
	c := cmp.Compare(e.Key, t.entry.Key)
	if c == 0 {
		return &node{e, t.prio, t.left, t.right}
	}
	if prio > t.prio { // so the key is not below t: it would have this priority there
		l, r := treeSplit(t, e.Key)
		return &node{e, prio, l, r}
	}
	if c < 0 {
		return &node{t.entry, t.prio, treePut(t.left, e, prio), t.right}
	}
	return &node{t.entry, t.prio, t.left, treePut(t.right, e, prio)}
}

// treeSplit parts t into the keys below and above key, which is not in t.
func treeSplit(t *node, key string) (l, r *node) {
	if t == nil {
		return nil, nil
	}
	if key < t.entry.Key {
		l, r = treeSplit(t.left, key)
		return l, &node{t.entry, t.prio, r, t.right}
	}
	l, r = treeSplit(t.right, key)
	return &node{t.entry, t.prio, t.left, l}, r
}

// treeDelete is t without key, which must be in it.
func treeDelete(t *node, key string) *node {
	switch c := cmp.Compare(key, t.entry.Key); {
	case c < 0:
		return &node{t.entry, t.prio, treeDelete(t.left, key), t.right}
	case c > 0:
		return &node{t.entry, t.prio, t.left, treeDelete(t.right, key)}
	}
	return treeMerge(t.left, t.right)
}

// treeMerge joins two trees, all keys of l below those of r.
func treeMerge(l, r *node) *node {
	switch {
	case l == nil:
		return r
	case r == nil:
		return l
	case l.prio > r.prio:
		return &node{l.entry, l.prio, l.left, treeMerge(l.right, r)}
	}
	return &node{r.entry, r.prio, treeMerge(l, r.left), r.right}
}

// treeAscend calls yield for each entry with key ≥ from in key order until it
// returns false; it reports whether it came to the end.
func treeAscend(t *node, from string, yield func(*Entry) bool) bool {
	if t == nil {
		return true
	}
	if from <= t.entry.Key {
		return treeAscend(t.left, from, yield) && yield(t.entry) && treeAscend(t.right, from, yield)
	}
	return treeAscend(t.right, from, yield)
}

// treeBuilder makes a tree out of ascending entries in linear time. Its nodes
// change until root is called.
type treeBuilder struct {
	spine []*node // the right edge, from the root down
}

func (b *treeBuilder) add(e *Entry, prio uint64) {
	n := &node{entry: e, prio: prio}
	for len(b.spine) > 0 && b.spine[len(b.spine)-1].prio < prio {
		n.left = b.spine[len(b.spine)-1]
		b.spine = b.spine[:len(b.spine)-1]
	}
	if len(b.spine) > 0 {
		b.spine[len(b.spine)-1].right = n
	}
	b.spine = append(b.spine, n)
}

func (b *treeBuilder) root() *node {
	if len(b.spine) == 0 {
		return nil
	}
	return b.spine[0]
}
