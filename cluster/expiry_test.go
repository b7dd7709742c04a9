package cluster

import (
	"testing"

	"ssi/cluster/registry"
	"ssi/internal/errno"
)

// leaseExpires: a key goes with its lease, which nobody renews.
func leaseExpires(t *testing.T, m *machine) {
	t.Helper()
	reg := m.c.Registry()
	res, err := reg.Do(m.ctx(), registry.EncodeGrant(m.c.Self(), registry.MinTTL))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reg.Put(m.ctx(), false, "/leased", nil, res.Lease); err != nil {
		t.Fatal(err)
	}
	await(t, "the end of the lease", m.c.Revision(), func(uint64) bool {
		_, err := reg.Stale().Get("/leased")
		return errno.Is(err, errno.NotFound)
	})
}
