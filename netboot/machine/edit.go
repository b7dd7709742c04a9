package machine

import (
	"slices"
	"time"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// An edit changes a copy of the table, or refuses and then the copy is dropped.
// The state of a node and whether its number was ever given out are facts that
// come from the cluster.
type facts interface {
	State(id.Node) api.State
	Given(id.Node) bool
}

// alive reports whether a node is in the cluster.
func alive(s api.State) bool {
	return s == api.ComingUp || s == api.Up || s == api.Shutdown || s == api.GoingDown
}

// settle gives a machine that is to be known its number and its name and puts it
// into the table.
func (b *Book) settle(m *Machine, f facts, now time.Time) error {
	if m.Node == 0 {
		n, err := b.free(f.Given)
		if err != nil {
			return err
		}
		m.Node = n
	} else if s := f.State(m.Node); alive(s) {
		return errno.New(errno.Exists, "machine", 0, "node %d is %s: it is another machine, or joined without netboot; choose another number", m.Node, s)
	}
	if m.Name == "" {
		m.Name = defaultName(m.Node)
	}
	m.Standing, m.Since, m.Asked = Known, now, time.Time{}
	return b.put(m)
}

// add adds machines, all or none; those that wait for approval are approved.
func (b *Book) add(specs []api.MachineSpec, f facts, now time.Time) ([]*Machine, error) {
	if len(specs) == 0 {
		return nil, invalid("there is no machine in the list")
	}
	if len(specs) > MaxList {
		return nil, invalid("%d machines are too many at once: add at most %d", len(specs), MaxList)
	}
	// Numbers that were asked for are not free for those that take any.
	order := make([]int, len(specs))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(x, y int) int {
		any := func(i int) int {
			if specs[i].Node == 0 {
				return 1
			}
			return 0
		}
		return any(x) - any(y)
	})
	added := make([]*Machine, len(specs))
	for _, i := range order {
		m, err := b.addOne(specs[i], f, now)
		if err != nil {
			if specs[i].Line > 0 {
				return nil, atLine(specs[i].Line, err)
			}
			return nil, err
		}
		added[i] = m
	}
	return added, nil
}

func (b *Book) addOne(spec api.MachineSpec, f facts, now time.Time) (*Machine, error) {
	if len(spec.MACs) == 0 {
		return nil, invalid("a machine needs a MAC address")
	}
	m := &Machine{First: now}
	if err := m.set(changeOf(spec)); err != nil {
		return nil, err
	}
	for _, mac := range m.MACs {
		if old := b.byMAC[mac]; old != nil && old.Standing == Pending {
			m.First = old.First
			b.remove(old)
		} else if old != nil && old.Standing == Denied {
			return nil, errno.New(errno.Exists, "machine", 0, "the machine %s was denied; `ssi node approve %s` lets it in", mac, mac)
		}
	}
	return m, b.settle(m, f, now)
}

// allowNext has the next unknown machines added.
func (b *Book) allowNext(p api.MachineNextParams, now time.Time) error {
	switch {
	case p.Count < 0 || p.Count > int(id.MaxNode):
		return invalid("%d is no number of machines: 1 to %d, or 0 to add no more", p.Count, id.MaxNode)
	case p.Count > 0 && (p.For <= 0 || p.For > api.MaxMachineWindow):
		return invalid("machines are added for at most %v, and for more than nothing", api.MaxMachineWindow)
	case len(p.Spec.MACs) > 0 || p.Spec.Node != 0 || p.Spec.Name != "" || p.Spec.Address != "":
		return invalid("the next machine that asks gets the next free number: it cannot be given a MAC address, number, name or address; use chnode afterwards")
	}
	var m Machine
	if err := m.set(changeOf(p.Spec)); err != nil {
		return err
	}
	if p.Count == 0 {
		b.next = Next{}
		return nil
	}
	b.next = Next{Left: p.Count, Until: now.Add(p.For), Spec: m}
	return nil
}

// change changes a machine. Its number stays while its node is in the cluster.
func (b *Book) change(m *Machine, c api.MachineChange, f facts, now time.Time) (*Machine, error) {
	if m.Standing != Known {
		return nil, invalid("the machine %s is %s: `ssi node approve %s` lets it in", m.ID(), m.Standing, m.ID())
	}
	next := *m
	if err := next.set(c); err != nil {
		return nil, err
	}
	if s := f.State(m.Node); alive(s) && (next.Node != m.Node || next.ID() != m.ID()) {
		return nil, errno.New(errno.Exists, "machine", 0, "%s is %s: its number and its first MAC address stay until it is down", m, s)
	}
	if next.Name == defaultName(m.Node) {
		next.Name = ""
	}
	b.remove(m)
	if next.Node == m.Node { // settle would take it for another machine's
		if next.Name == "" {
			next.Name = defaultName(next.Node)
		}
		return &next, b.put(&next)
	}
	since := next.Since
	err := b.settle(&next, f, now)
	next.Since = since
	return &next, err
}

// removeKnown removes a machine, whatever its standing.
func (b *Book) removeKnown(m *Machine, force bool, f facts) error {
	if s := f.State(m.Node); m.Node != 0 && alive(s) && !force {
		return errno.New(errno.Exists, "machine", 0, "%s is %s: shut it down first (clusternode_shutdown -h -N %d now), or remove it with --force", m, s, m.Node)
	}
	b.remove(m)
	return nil
}

// approve lets a machine in that waits or was denied.
func (b *Book) approve(m *Machine, c api.MachineChange, f facts, now time.Time) (*Machine, error) {
	if m.Standing == Known {
		return nil, errno.New(errno.Exists, "machine", 0, "%s is known already; chnode changes it", m)
	}
	next := *m
	if err := next.set(c); err != nil {
		return nil, err
	}
	b.remove(m)
	return &next, b.settle(&next, f, now)
}

// deny refuses a machine for as long as it is in the table.
func (b *Book) deny(arg string, now time.Time) (*Machine, error) {
	m, err := b.Find(arg)
	if err != nil {
		mac, perr := ParseMAC(arg)
		if perr != nil {
			return nil, err
		}
		m = &Machine{MACs: []MAC{mac}, First: now}
	} else {
		switch m.Standing {
		case Known:
			return nil, errno.New(errno.Exists, "machine", 0, "%s is known; remove it first: rmnode %d", m, m.Node)
		case Denied:
			return m, nil
		}
		b.remove(m)
	}
	if n, _ := b.count(Denied); n >= MaxDenied {
		return nil, errno.New(errno.Full, "machine", 0, "%d machines are denied already, more are not kept; rmnode forgets one", MaxDenied)
	}
	next := *m
	next.Standing, next.Since = Denied, now
	return &next, b.put(&next)
}

// asked notes that an unknown machine asked: it becomes known while the next ones
// are added, else it waits. It changes nothing for machines with another standing.
func (b *Book) asked(mac MAC, arch string, f facts, now time.Time) error {
	old := b.byMAC[mac]
	if old != nil && old.Standing != Pending {
		return nil
	}
	m := &Machine{MACs: []MAC{mac}, Arch: arch, Standing: Pending, Since: now, First: now}
	if old != nil {
		*m = *old
		b.remove(old)
	} else if n, oldest := b.count(Pending); n >= MaxPending {
		b.remove(oldest)
	}
	m.Asked = now
	if !b.next.open(now) {
		return b.put(m)
	}
	spec := b.next.Spec
	spec.MACs, spec.First = m.MACs, m.First
	if spec.Arch == "" {
		spec.Arch = m.Arch
	}
	if err := b.settle(&spec, f, now); err != nil {
		return b.put(m) // no number is left: it waits, and the operator sees it
	}
	b.next.Left--
	return nil
}
