package netboot

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"ssi/cluster/registry"
	"ssi/netboot/dhcp"
	"ssi/netboot/machine"
)

// The keys of the registry.
const (
	keyServer = "/sys/netboot/server" // who serves: written when the leases are loaded
	keyLeases = "/sys/netboot/lease"  // …/ADDRESS: dhcp.Lease as text
)

// leaseOps is how many leases are committed at once, beside the check that we
// still serve.
const leaseOps = registry.MaxOps / 2

// Registry is what is needed of the cluster's registry (cluster.Registry).
type Registry interface {
	View(ctx context.Context) (registry.View, error)
	Stale() registry.View
	Txn(ctx context.Context, system bool, checks []*registry.Compare, ops ...*registry.Op) (*registry.Result, error)
}

// leases keeps the leases in the registry; it is a dhcp.Store. Load makes this
// server the one that may commit: a server of before, which may still run on a
// node that lost init, is refused from then on.
type leases struct {
	reg    Registry
	leased func(dhcp.MAC, netip.Addr) // told of each lease that was committed

	serves uint64 // revision of keyServer since Load
}

func (l *leases) Load(ctx context.Context) ([]dhcp.Lease, error) {
	r, err := l.reg.Txn(ctx, true, nil, registry.PutOp(keyServer, []byte(rand.Text()), 0))
	if err != nil {
		return nil, fmt.Errorf("leases: become the server: %w", err)
	}
	l.serves = r.GetRevision()
	view, err := l.reg.View(ctx)
	if err != nil {
		return nil, fmt.Errorf("leases: %w", err)
	}
	entries, err := list(view, keyLeases)
	if err != nil {
		return nil, fmt.Errorf("leases: %w", err)
	}
	all := make([]dhcp.Lease, 0, len(entries))
	for _, e := range entries {
		var lease dhcp.Lease
		if err := lease.UnmarshalText(e.Value); err != nil {
			return nil, fmt.Errorf("leases: registry key %s: %w", e.Key, err)
		}
		all = append(all, lease)
		if l.leased != nil && !lease.Declined {
			l.leased(lease.MAC, lease.Addr)
		}
	}
	return all, nil
}

// list returns all entries below a prefix.
func list(view registry.View, prefix string) (all []*registry.Entry, err error) {
	for after := ""; ; {
		entries, more, err := view.List(prefix, 0, after)
		if err != nil {
			return nil, err
		}
		all = append(all, entries...)
		if !more || len(entries) == 0 {
			return all, nil
		}
		after = entries[len(entries)-1].Key
	}
}

// Commit carries out the changes in transactions of leaseOps. When a later one
// fails, leases of the earlier ones are kept that no machine was told of: the
// address stays free for its machine, and for all when the lease expires.
func (l *leases) Commit(ctx context.Context, changes []dhcp.Change) error {
	for part := range slices.Chunk(changes, leaseOps) {
		ops := make([]*registry.Op, 0, len(part))
		for _, c := range part {
			key := keyLeases + "/" + c.Lease.Addr.String()
			if c.Delete {
				ops = append(ops, registry.DeleteOp(key))
				continue
			}
			text, err := c.Lease.MarshalText()
			if err != nil {
				return fmt.Errorf("lease of %v: %w", c.Lease.Addr, err)
			}
			ops = append(ops, registry.PutOp(key, text, 0))
		}
		if _, err := l.reg.Txn(ctx, true, []*registry.Compare{registry.Check(keyServer, l.serves)}, ops...); err != nil {
			return fmt.Errorf("commit of leases (does another node serve?): %w", err)
		}
		for _, c := range part {
			if l.leased != nil && !c.Delete && !c.Lease.Declined {
				l.leased(c.Lease.MAC, c.Lease.Addr)
			}
		}
	}
	return nil
}

// maxAddresses is how many addresses are remembered: as many as a pool has.
const maxAddresses = 2 * dhcp.MaxPool

// addresses knows which machine has which address: what is served by TFTP and
// HTTP goes to an address, and a boot is one of a machine.
type addresses struct {
	neighbours machine.Neighbours // for addresses that another server gave

	mu sync.Mutex
	of map[netip.Addr]machine.MAC
}

func (a *addresses) set(mac machine.MAC, ip netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, there := a.of[ip]; there || len(a.of) < maxAddresses {
		a.of[ip] = mac
	}
}

// owner is the machine that has an address.
func (a *addresses) owner(ip netip.Addr) (machine.MAC, error) {
	ip = ip.Unmap()
	a.mu.Lock()
	mac, ok := a.of[ip]
	a.mu.Unlock()
	if ok {
		return mac, nil
	}
	mac, ok, err := a.neighbours.Neighbour(ip)
	if err == nil && !ok {
		err = fmt.Errorf("%v: no machine is known to have this address", ip)
	}
	return mac, err
}
