package machine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"ssi/cluster/registry"
	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// Registry is what the table needs of the cluster's registry (cluster.Registry).
type Registry interface {
	// View is the registry, at least as new as the call.
	View(ctx context.Context) (registry.View, error)
	// Stale is the registry as this node knows it.
	Stale() registry.View
	Txn(ctx context.Context, system bool, checks []*registry.Compare, ops ...*registry.Op) (*registry.Result, error)
}

// Cluster is what the table needs of the cluster; see Of.
type Cluster interface {
	// Self is this node.
	Self() id.Node
	// State is that of a node now; "" or NEVERUP if it never joined.
	State(id.Node) api.State
	// Given reports whether a number was ever given to a node that may come back.
	Given(id.Node) bool
	// Credential makes a join file with a one-time token for a number.
	Credential(ctx context.Context, n id.Node, ttl time.Duration) ([]byte, error)
	// Revoke withdraws all certificates of a node; errno.NotFound if it has none.
	Revoke(ctx context.Context, n id.Node, cause string) error
}

// Table is the table of machines as a daemon uses it.
type Table struct {
	// Classes are the hardware classes that a machine may be given; nil takes any.
	// It is set before the table is used.
	Classes []string

	reg     Registry
	cluster Cluster
	now     func() time.Time

	mu     sync.Mutex
	cached *Book
}

// NewTable makes the table of a cluster.
func NewTable(reg Registry, cluster Cluster) *Table {
	return &Table{reg: reg, cluster: cluster, now: time.Now}
}

// Book is the table as this node knows it. It costs little as long as nothing was
// edited: the packet loops may call it.
func (t *Table) Book() (*Book, error) {
	view := t.reg.Stale()
	gen := uint64(0)
	if e, err := view.Get(keyTable); err == nil {
		gen = e.Mod
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cached != nil && t.cached.gen == gen {
		return t.cached, nil
	}
	b, err := readBook(view)
	if err != nil {
		return nil, err
	}
	if t.cached == nil || b.gen > t.cached.gen {
		t.cached = b
	}
	return b, nil
}

// edit changes the table by f, which is called again if somebody else was
// quicker.
func (t *Table) edit(ctx context.Context, f func(*Book) error) error {
	for range maxTries {
		view, err := t.reg.View(ctx)
		if err != nil {
			return err
		}
		old, err := readBook(view)
		if err != nil {
			return err
		}
		book := old.clone()
		if err := f(book); err != nil {
			return err
		}
		if err := t.checkClasses(book, old); err != nil {
			return err
		}
		checks, ops := book.diff(old)
		if len(ops) == 0 {
			return nil
		}
		_, err = t.reg.Txn(ctx, true, checks, ops...)
		if !errno.Is(err, errno.Exists) {
			return err
		}
	}
	return errno.New(errno.Unavailable, "machine", 0, "too many others change the table of machines at once; try again")
}

// checkClasses refuses a class that nobody makes an initramfs for. One that was
// given before, by a node with another ssi, stays.
func (t *Table) checkClasses(book, old *Book) error {
	given := map[string]bool{"": true, old.next.Spec.Class: true}
	for _, m := range old.Machines() {
		given[m.Class] = true
	}
	check := func(class string) error {
		if t.Classes == nil || given[class] || slices.Contains(t.Classes, class) {
			return nil
		}
		return invalid("%.64q is no hardware class: use %s, or none for a machine that has the common drivers", class, strings.Join(t.Classes, ", "))
	}
	for _, m := range book.Machines() {
		if err := check(m.Class); err != nil {
			return err
		}
	}
	return check(book.next.Spec.Class)
}

// editOne is edit for what returns one machine.
func (t *Table) editOne(ctx context.Context, f func(*Book) (*Machine, error)) (*Machine, error) {
	var m *Machine
	err := t.edit(ctx, func(b *Book) (err error) {
		m, err = f(b)
		return err
	})
	return m, err
}

// Add adds machines, all or none.
func (t *Table) Add(ctx context.Context, specs []api.MachineSpec) ([]*Machine, error) {
	var added []*Machine
	err := t.edit(ctx, func(b *Book) (err error) {
		added, err = b.add(specs, t.cluster, t.now())
		return err
	})
	return added, err
}

// AllowNext has the next unknown machines that ask added.
func (t *Table) AllowNext(ctx context.Context, p api.MachineNextParams) (api.MachineNext, error) {
	var next Next
	err := t.edit(ctx, func(b *Book) error {
		err := b.allowNext(p, t.now())
		next = b.next
		return err
	})
	return api.MachineNext{Left: next.Left, Until: next.Until}, err
}

// Change changes a machine.
func (t *Table) Change(ctx context.Context, arg string, c api.MachineChange) (*Machine, error) {
	return t.editOne(ctx, func(b *Book) (*Machine, error) {
		m, err := b.Find(arg)
		if err != nil {
			return nil, err
		}
		return b.change(m, c, t.cluster, t.now())
	})
}

// Approve lets a machine in.
func (t *Table) Approve(ctx context.Context, arg string, c api.MachineChange) (*Machine, error) {
	return t.editOne(ctx, func(b *Book) (*Machine, error) {
		m, err := b.Find(arg)
		if err != nil {
			return nil, err
		}
		return b.approve(m, c, t.cluster, t.now())
	})
}

// Deny refuses a machine.
func (t *Table) Deny(ctx context.Context, arg string) (*Machine, error) {
	return t.editOne(ctx, func(b *Book) (*Machine, error) { return b.deny(arg, t.now()) })
}

// Remove removes a machine, and revokes the certificates of its node. It is
// removed first, so that it gets no new one in between.
func (t *Table) Remove(ctx context.Context, p api.MachineRemoveParams) (m *Machine, revoked bool, err error) {
	m, err = t.editOne(ctx, func(b *Book) (*Machine, error) {
		m, err := b.Find(p.Machine)
		if err != nil {
			return nil, err
		}
		if m.Node != 0 && m.Node == t.cluster.Self() { // Revoke would refuse, too late
			return nil, invalid("%s is the node you are on; remove it from another node", m)
		}
		return m, b.removeKnown(m, p.Force, t.cluster)
	})
	if err != nil || m.Node == 0 || m.Standing != Known {
		return m, false, err
	}
	if p.Cause == "" {
		p.Cause = "removed by rmnode"
	}
	err = t.cluster.Revoke(ctx, m.Node, p.Cause)
	switch {
	case errno.Is(err, errno.NotFound):
		return m, false, nil
	case err != nil:
		return m, false, fmt.Errorf("%s is removed, but its certificates are not revoked (cluster revoke %d): %w", m, m.Node, err)
	}
	return m, true, nil
}

// asked notes that an unknown machine asked.
func (t *Table) asked(ctx context.Context, mac MAC, arch string) error {
	return t.edit(ctx, func(b *Book) error { return b.asked(mac, arch, t.cluster, t.now()) })
}

// editBoot changes the boot record of a machine of the table; f reports whether
// there is anything to write.
func (t *Table) editBoot(ctx context.Context, mac MAC, f func(Boot) (Boot, bool)) error {
	for range maxTries {
		view := t.reg.Stale()
		book, err := readBook(view)
		if err != nil {
			return err
		}
		m := book.Lookup(mac)
		if m == nil {
			return errno.New(errno.NotFound, "machine", 0, "no machine has the MAC address %s", mac)
		}
		boot, mod, err := readBoot(view, m.ID())
		if err != nil {
			return err
		}
		next, ok := f(boot)
		if !ok {
			return nil
		}
		checks := []*registry.Compare{registry.Check(keyMachine(m.ID()), modOf(view, keyMachine(m.ID()))), registry.Check(keyBoot(m.ID()), mod)}
		_, err = t.reg.Txn(ctx, true, checks, registry.PutOp(keyBoot(m.ID()), encode(next), 0))
		if !errno.Is(err, errno.Exists) {
			return err
		}
		if _, err := t.reg.View(ctx); err != nil { // wait until this node sees who was quicker
			return err
		}
	}
	return errno.New(errno.Unavailable, "machine", 0, "too many others write about %s at once; try again", mac)
}

// modOf is the revision of a key, 0 if there is none.
func modOf(view registry.View, key string) uint64 {
	if e, err := view.Get(key); err == nil {
		return e.Mod
	}
	return 0
}

// List is the table with what is known of each machine, as this node knows it.
func (t *Table) List() (api.MachineListReply, error) {
	reply := api.MachineListReply{Machines: []api.MachineInfo{}}
	view := t.reg.Stale()
	book, err := readBook(view)
	if err != nil {
		return reply, err
	}
	for _, m := range book.Machines() {
		info, err := t.info(view, m)
		if err != nil {
			return reply, err
		}
		reply.Machines = append(reply.Machines, info)
	}
	if book.next.open(t.now()) {
		reply.Next = &api.MachineNext{Left: book.next.Left, Until: book.next.Until}
	}
	return reply, nil
}

// Info is what is known of one machine.
func (t *Table) Info(m *Machine) (api.MachineInfo, error) { return t.info(t.reg.Stale(), m) }

func (t *Table) info(view registry.View, m *Machine) (api.MachineInfo, error) {
	boot, _, err := readBoot(view, m.ID())
	if err != nil {
		return api.MachineInfo{}, err
	}
	node := api.State("")
	if m.Node != 0 && m.Standing == Known {
		node = t.cluster.State(m.Node)
	}
	return infoOf(m, boot, node, t.now()), nil
}

// infoOf puts together what is known of a machine.
func infoOf(m *Machine, b Boot, node api.State, now time.Time) api.MachineInfo {
	info := api.MachineInfo{
		MachineSpec: api.MachineSpec{Node: m.Node, Name: m.Name, Class: m.Class, Arch: m.Arch, Boot: string(m.Boot), Args: m.Args},
		State:       api.MachineKnown, NodeState: node, Since: m.Since, FirstSeen: m.First,
		Booted: b.At, Phase: b.Phase, PhaseSince: b.PhaseAt, Text: b.Text, Alarm: b.Alarm,
	}
	for _, mac := range m.MACs {
		info.MACs = append(info.MACs, mac.String())
	}
	if m.Address.IsValid() {
		info.Address = m.Address.String()
	}
	if b.IP.IsValid() {
		info.IP = b.IP.String()
	}
	for _, at := range []time.Time{m.Asked, b.At, b.PhaseAt} {
		if at.After(info.LastSeen) {
			info.LastSeen = at
		}
	}
	switch {
	case m.Standing == Denied:
		info.State = api.MachineDenied
	case m.Standing == Pending:
		info.State = api.MachinePending
	case node == api.Up || node == api.Shutdown || node == api.GoingDown:
		info.State, info.LastSeen = api.MachineUp, now
	case !b.At.IsZero() && now.Sub(b.At) < bootingFor || node == api.ComingUp:
		info.State = api.MachineBooting
	}
	return info
}
