package registry

import (
	"fmt"
	"testing"
	"time"

	"ssi/internal/errno"
)

func TestLeases(t *testing.T) {
	s := NewStore()
	lease := do(t, s, EncodeGrant(7, 1500*time.Millisecond)).Lease
	do(t, s, txn(t, nil, PutOp("/x/b", nil, lease), PutOp("/x/a", nil, lease), PutOp("/keep", nil, 0)))
	if l := s.Leases(); len(l) != 1 || l[0] != (Lease{ID: lease, Owner: 7, TTL: 1500 * time.Millisecond, Keys: 2}) {
		t.Errorf("%+v", l)
	}
	put(t, s, "/x/a", "off the lease now")
	do(t, s, EncodeRenew(lease))
	refused(t, s, errno.Stale, EncodeExpire(lease, 0))
	rev := s.View().Revision()
	if res := do(t, s, EncodeExpire(lease, 1)); res.Deleted != 1 || res.Revision != rev+1 {
		t.Error(res)
	}
	if _, err := s.View().Get("/x/a"); err != nil {
		t.Error(err)
	}
	if _, err := s.View().Get("/x/b"); !errno.Is(err, errno.NotFound) {
		t.Error(err)
	}
	// A lease without keys ends without a revision, and no ID comes twice.
	lease2 := do(t, s, EncodeGrant(7, time.Second)).Lease
	if res := do(t, s, EncodeRevoke(lease2)); res.Revision != rev+1 || lease2 == lease {
		t.Error(res, lease2)
	}
	s = restored(t, s)
	if l := do(t, s, EncodeGrant(7, time.Second)).Lease; l <= lease2 {
		t.Errorf("lease %d after %d", l, lease2)
	}
}

func TestLeaseOrderOfRemoval(t *testing.T) {
	s := NewStore()
	lease := do(t, s, EncodeGrant(1, time.Second)).Lease
	for i := range 50 {
		do(t, s, txn(t, nil, PutOp(fmt.Sprintf("/k%02d", i*37%50), nil, lease)))
	}
	rev := s.View().Revision()
	do(t, s, EncodeRevoke(lease))
	for i, e := range mustEvents(t, s.View(), rev) {
		if want := fmt.Sprintf("/k%02d", i); e.Key != want || e.Entry != nil || e.Revision != rev+1 {
			t.Fatalf("event %d is %+v", i, e)
		}
	}
}

func TestLeaseClock(t *testing.T) {
	s := NewStore()
	short := do(t, s, EncodeGrant(1, time.Second)).Lease
	do(t, s, EncodeGrant(1, time.Minute))
	c := NewLeaseClock()
	at := func(now time.Duration, want int) [][]byte {
		t.Helper()
		cmds := c.Overdue(s, now, 10)
		if len(cmds) != want {
			t.Fatalf("%v: %d overdue, want %d", now, len(cmds), want)
		}
		return cmds
	}
	at(10*time.Second, 0) // first seen now
	at(11*time.Second, 0)
	do(t, s, EncodeRenew(short))
	at(11500*time.Millisecond, 0)
	at(12500*time.Millisecond, 0)
	late := at(12501*time.Millisecond, 1)
	if cmds := c.Overdue(s, time.Hour, 1); len(cmds) != 1 {
		t.Errorf("%d commands, the limit was 1", len(cmds))
	}
	do(t, s, EncodeRenew(short)) // came in between
	refused(t, s, errno.Stale, late[0])
	at(13*time.Second, 0)
	do(t, s, at(15*time.Second, 1)[0])
	at(16*time.Second, 0)
	if len(c.seen) != 1 {
		t.Errorf("the clock remembers %d leases", len(c.seen))
	}
	// A new leader gives all a whole life.
	c = NewLeaseClock()
	at(10*time.Minute, 0)
	at(11*time.Minute, 0)
	at(11*time.Minute+1, 1)
}
