package machine

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"ssi/cluster/registry"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// Book is the table at one moment. The Machines in it are never changed, only
// replaced; who got a Book from Table must not change it.
type Book struct {
	gen      uint64           // revision of keyTable
	machines map[MAC]*Machine // by ID
	byMAC    map[MAC]*Machine
	next     Next
}

// readBook reads the table.
func readBook(view registry.View) (*Book, error) {
	b := &Book{machines: map[MAC]*Machine{}, byMAC: map[MAC]*Machine{}}
	if e, err := view.Get(keyTable); err == nil {
		b.gen = e.Mod
	}
	if e, err := view.Get(keyNext); err == nil {
		if err := decode(e, &b.next); err != nil {
			return nil, err
		}
	}
	entries, _, err := view.List(keyMachines+"/", 0, "")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		m, err := decodeMachine(e)
		if err != nil {
			return nil, err
		}
		if err := b.put(m); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *Book) clone() *Book {
	return &Book{gen: b.gen, machines: maps.Clone(b.machines), byMAC: maps.Clone(b.byMAC), next: b.next}
}

// put adds a machine, or is why that would give something twice.
func (b *Book) put(m *Machine) error {
	for _, mac := range m.MACs {
		if other := b.byMAC[mac]; other != nil {
			return taken("MAC address %s is that of %s", mac, other)
		}
	}
	for _, other := range b.machines {
		switch {
		case m.Node != 0 && other.Node == m.Node:
			return taken("node number %d is that of %s", m.Node, other)
		case m.Name != "" && other.Name == m.Name:
			return taken("the name %s is that of %s", m.Name, other)
		case m.Address.IsValid() && other.Address == m.Address:
			return taken("the address %s is that of %s", m.Address, other)
		}
	}
	b.machines[m.ID()] = m
	for _, mac := range m.MACs {
		b.byMAC[mac] = m
	}
	return nil
}

func taken(format string, args ...any) error {
	return errno.New(errno.Exists, "machine", 0, format+"; `clustertab` lists all", args...)
}

// String names a machine in messages.
func (m *Machine) String() string {
	if m.Node == 0 {
		return "the machine " + m.ID().String()
	}
	return m.Name + " (node " + m.Node.String() + ", " + m.ID().String() + ")"
}

func (b *Book) remove(m *Machine) {
	delete(b.machines, m.ID())
	for _, mac := range m.MACs {
		delete(b.byMAC, mac)
	}
}

// Lookup finds the machine that has this MAC, or nil.
func (b *Book) Lookup(mac MAC) *Machine { return b.byMAC[mac] }

// Find finds a machine by its node number, its name or one of its MACs.
func (b *Book) Find(arg string) (*Machine, error) {
	arg = strings.TrimSpace(arg)
	if mac, err := ParseMAC(arg); err == nil {
		if m := b.byMAC[mac]; m != nil {
			return m, nil
		}
		return nil, errno.New(errno.NotFound, "machine", 0, "no machine has the MAC address %s; `clustertab` lists all", mac)
	}
	for _, m := range b.machines {
		if m.Name != "" && m.Name == arg || m.Node != 0 && m.Node.String() == arg {
			return m, nil
		}
	}
	return nil, errno.New(errno.NotFound, "machine", 0, "no machine of the table is %.64q: give a node number, a name or a MAC address; `clustertab` lists all", arg)
}

// Machines is all of them: by node number, then those without one, by MAC.
func (b *Book) Machines() []*Machine {
	return slices.SortedFunc(maps.Values(b.machines), func(x, y *Machine) int {
		if (x.Node == 0) != (y.Node == 0) {
			return cmp.Compare(y.Node, x.Node)
		}
		return cmp.Or(cmp.Compare(x.Node, y.Node), slices.Compare(x.MACs[0][:], y.MACs[0][:]))
	})
}

// count is how many machines have a standing, and the one that was longest not
// heard of.
func (b *Book) count(s Standing) (n int, oldest *Machine) {
	for _, m := range b.Machines() {
		if m.Standing != s {
			continue
		}
		n++
		if oldest == nil || m.Asked.Before(oldest.Asked) {
			oldest = m
		}
	}
	return n, oldest
}

// free is the lowest number that neither the table nor the cluster gave out.
func (b *Book) free(given func(id.Node) bool) (id.Node, error) {
	used := map[id.Node]bool{}
	for _, m := range b.machines {
		used[m.Node] = true
	}
	for n := id.Node(1); n <= id.MaxNode; n++ {
		if !used[n] && !given(n) {
			return n, nil
		}
	}
	return 0, errno.New(errno.Full, "machine", 0, "all %d node numbers are given out; give one that is no longer used with --node, or remove a machine with rmnode", id.MaxNode)
}

// diff is the transaction that makes a book of old: it holds only if nobody else
// edited the table since old was read. It is nil if nothing is changed.
func (b *Book) diff(old *Book) (checks []*registry.Compare, ops []*registry.Op) {
	for _, m := range old.Machines() {
		if b.machines[m.ID()] == nil {
			ops = append(ops, registry.DeleteOp(keyMachine(m.ID())), registry.DeleteOp(keyBoot(m.ID())))
		}
	}
	for _, m := range b.Machines() {
		if old.machines[m.ID()] != m {
			ops = append(ops, registry.PutOp(keyMachine(m.ID()), encode(m), 0))
		}
	}
	if b.next.Left != old.next.Left || !b.next.Until.Equal(old.next.Until) {
		ops = append(ops, registry.PutOp(keyNext, encode(b.next), 0))
	}
	if len(ops) == 0 {
		return nil, nil
	}
	return []*registry.Compare{registry.Check(keyTable, old.gen)}, append(ops, registry.PutOp(keyTable, []byte("1"), 0))
}
