package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"ssi/cluster/member"
	"ssi/cluster/registry"
	"ssi/internal/api"
	"ssi/internal/errno"
)

// TestPermissions: only reading is for everyone.
func TestPermissions(t *testing.T) {
	readers := []string{api.MethodClusterStatus, api.MethodClusterHistory, api.MethodRegistryGet, api.MethodRegistryList}
	methods := (&Control{}).methods()
	for _, m := range methods {
		if m.root == slices.Contains(readers, m.name) {
			t.Errorf("%s: for root alone: %v", m.name, m.root)
		}
		called := false
		f := limited(m.root, func(ctx context.Context, _ *api.Call) error {
			_, called = ctx.Deadline()
			return nil
		})
		err := f(t.Context(), &api.Call{Method: m.name, Peer: api.Peer{UID: 1000, GID: 0, Groups: []uint32{0}}})
		if called == m.root || errno.Is(err, errno.Permission) != m.root {
			t.Errorf("%s by user 1000: called with a deadline %v, %v", m.name, called, err)
		}
		if err := f(t.Context(), &api.Call{Method: m.name, Peer: api.Peer{UID: 0}}); err != nil || !called {
			t.Errorf("%s by root: called with a deadline %v, %v", m.name, called, err)
		}
	}
	if len(methods) != 16 {
		t.Errorf("%d methods", len(methods))
	}
}

// TestSecrets: the cluster's key comes out of no method.
func TestSecrets(t *testing.T) {
	n := start(t)
	n.up()
	if _, err := n.c.Revision().Wait(n.ctx(), func(uint64) bool {
		_, err := n.c.Registry().Stale().Get("/sys/secret/ca-key")
		return err == nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"/sys/secret/ca-key", "/sys/secret"} {
		for _, stale := range []bool{true, false} {
			if r, err := ask[api.RegistryGetReply](n, api.MethodRegistryGet, api.RegistryGetParams{Key: key, Stale: stale}); !errno.Is(err, errno.Permission) {
				t.Errorf("get %s: %+v, %v", key, r, err)
			}
		}
	}
	sees := func(what string, kvs []api.KV) {
		t.Helper()
		for _, kv := range kvs {
			if strings.Contains(kv.Key, "secret") || strings.Contains(string(kv.Value), "PRIVATE") {
				t.Errorf("%s shows %s", what, kv.Key)
			}
		}
	}
	// The node itself writes keys meanwhile: pages of different revisions say
	// nothing about each other.
	pages := func(prefix string) (all []api.KV, first uint64) {
		t.Helper()
		for p := (api.RegistryListParams{Prefix: prefix, Limit: 1}); ; {
			r := must[api.RegistryListReply](n, api.MethodRegistryList, p)
			if all = append(all, r.KVs...); first == 0 {
				first = r.Revision
			}
			if !r.More {
				return all, first
			}
			if len(r.KVs) != 1 || len(all) > 100 {
				t.Fatalf("list %q: a page of %d keys says that there are more", prefix, len(r.KVs))
			}
			p.After = r.KVs[0].Key
		}
	}
	for _, prefix := range []string{"", "/", "/sys", "/sys/", "/sys/secret", "/sys/secret/", "/sys/secret/ca-key"} {
		for tries := 0; ; tries++ {
			all, first := pages(prefix)
			sees("list "+prefix, all)
			whole := must[api.RegistryListReply](n, api.MethodRegistryList, api.RegistryListParams{Prefix: prefix})
			if whole.Revision == first {
				if len(whole.KVs) != len(all) {
					t.Errorf("list %q: %d keys at once, %d in pages", prefix, len(whole.KVs), len(all))
				}
				break
			}
			if tries == 100 {
				t.Fatalf("list %q: the registry never keeps still", prefix)
			}
		}
	}
	events, stop := follow[api.RegistryEvent](n, api.MethodRegistryWatch, api.RegistryWatchParams{Prefix: "/sys/secret", After: 0})
	next(t, events)
	if _, err := n.c.Registry().Put(n.ctx(), true, "/sys/secret/x", []byte("y"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := n.c.Registry().Put(n.ctx(), true, "/sys/secret-not", nil, 0); err != nil {
		t.Fatal(err)
	}
	_ = stop()
	for e := range events {
		t.Errorf("the watch shows %+v", e)
	}
	for _, key := range []string{"/sys/secret/ca-key", "/sys/other"} {
		if _, err := ask[api.RegistryWriteReply](n, api.MethodRegistryPut, api.RegistryPutParams{Key: key}); !errno.Is(err, errno.Permission) {
			t.Errorf("put %s: %v", key, err)
		}
		if _, err := ask[api.RegistryDeleteReply](n, api.MethodRegistryDelete, api.RegistryDeleteParams{Key: key}); !errno.Is(err, errno.Permission) {
			t.Errorf("delete %s: %v", key, err)
		}
	}
	if _, err := ask[api.RegistryDeleteReply](n, api.MethodRegistryDelete, api.RegistryDeleteParams{Key: "/", Prefix: true}); !errno.Is(err, errno.Permission) {
		t.Errorf("delete of everything: %v", err)
	}
}

// TestPages: a page is bounded in bytes, and by the limit asked for.
func TestPages(t *testing.T) {
	s := registry.NewStore()
	value := make([]byte, 128<<10)
	for i := range 3 * pageKeys {
		v := value[:1]
		if i%16 == 0 {
			v = value
		}
		key := fmt.Sprintf("/k/%04d", i)
		if i > 10 && i < 10+2*pageKeys {
			key = fmt.Sprintf("/sys/secret/%04d", i)
		}
		cmd, err := registry.EncodeTxn(true, nil, registry.PutOp(key, v, 0))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := registry.DecodeResult(s.Apply(uint64(i), cmd)); err != nil {
			t.Fatal(err)
		}
	}
	for _, limit := range []int{-1, 0, 1, 7, pageKeys} {
		count, pages := 0, 0
		for p := (api.RegistryListParams{Limit: limit}); ; pages++ {
			r, err := page(s.View(), p)
			if err != nil {
				t.Fatal(err)
			}
			size := 0
			for _, kv := range r.KVs {
				size += len(kv.Value)
			}
			if size > pageBytes+len(value) || limit > 0 && len(r.KVs) > limit {
				t.Errorf("limit %d: a page of %d bytes and %d keys", limit, size, len(r.KVs))
			}
			count += len(r.KVs)
			if !r.More {
				break
			}
			if len(r.KVs) == 0 {
				t.Fatalf("limit %d: an empty page says that there are more", limit)
			}
			p.After = r.KVs[len(r.KVs)-1].Key
		}
		if want := pageKeys + 1; count != want {
			t.Errorf("limit %d: %d keys in %d pages, want %d", limit, count, pages, want)
		}
	}
	if r, err := page(s.View(), api.RegistryListParams{Prefix: "/k", KeysOnly: true}); err != nil || len(r.KVs) != pageKeys+1 || r.KVs[0].Value != nil {
		t.Errorf("keys only: %d, %v", len(r.KVs), err)
	}
	if _, err := page(s.View(), api.RegistryListParams{Prefix: "k"}); !errno.Is(err, errno.Invalid) {
		t.Errorf("a bad prefix: %v", err)
	}
}

func TestRegistry(t *testing.T) {
	n := start(t)
	n.up()
	events, stop := follow[api.RegistryEvent](n, api.MethodRegistryWatch, api.RegistryWatchParams{Prefix: "/a"})
	from := next(t, events).Revision
	put := must[api.RegistryWriteReply](n, api.MethodRegistryPut, api.RegistryPutParams{Key: "/a/b", Value: []byte("1")})
	if put.Revision <= from {
		t.Errorf("revision %d after %d", put.Revision, from)
	}
	if e := next(t, events); e.Put == nil || e.Put.Key != "/a/b" || string(e.Put.Value) != "1" || e.Revision != put.Revision {
		t.Errorf("the watch says %+v", e)
	}
	got := must[api.RegistryGetReply](n, api.MethodRegistryGet, api.RegistryGetParams{Key: "/a/b"})
	if string(got.KV.Value) != "1" || got.KV.Mod != put.Revision || got.KV.Version != 1 {
		t.Errorf("get: %+v", got)
	}
	if _, err := ask[api.RegistryWriteReply](n, api.MethodRegistryCAS, api.RegistryCASParams{Key: "/a/b", Value: []byte("2")}); !errno.Is(err, errno.Exists) {
		t.Errorf("cas of a key that must not exist: %v", err)
	}
	must[api.RegistryWriteReply](n, api.MethodRegistryCAS, api.RegistryCASParams{Key: "/a/b", Value: []byte("2"), Mod: put.Revision})
	next(t, events)
	if _, err := ask[api.RegistryDeleteReply](n, api.MethodRegistryDelete, api.RegistryDeleteParams{Key: "/a/b", Mod: put.Revision}); !errno.Is(err, errno.Exists) {
		t.Errorf("delete of another revision: %v", err)
	}
	if _, err := ask[api.RegistryDeleteReply](n, api.MethodRegistryDelete, api.RegistryDeleteParams{Key: "/a", Prefix: true, Mod: 1}); !errno.Is(err, errno.Invalid) {
		t.Errorf("delete of a prefix and a revision: %v", err)
	}
	if r := must[api.RegistryDeleteReply](n, api.MethodRegistryDelete, api.RegistryDeleteParams{Key: "/a", Prefix: true}); r.Deleted != 1 {
		t.Errorf("deleted %d", r.Deleted)
	}
	if e := next(t, events); e.Delete != "/a/b" {
		t.Errorf("the watch says %+v", e)
	}
	if _, err := ask[api.RegistryDeleteReply](n, api.MethodRegistryDelete, api.RegistryDeleteParams{Key: "/a/b"}); !errno.Is(err, errno.NotFound) {
		t.Errorf("delete of nothing: %v", err)
	}

	lease := must[api.LeaseReply](n, api.MethodRegistryGrant, api.LeaseGrantParams{TTL: time.Minute})
	must[api.RegistryWriteReply](n, api.MethodRegistryPut, api.RegistryPutParams{Key: "/a/l", Lease: lease.ID})
	next(t, events)
	must[api.LeaseReply](n, api.MethodRegistryRenew, api.LeaseParams{ID: lease.ID})
	must[api.LeaseReply](n, api.MethodRegistryRevoke, api.LeaseParams{ID: lease.ID})
	if e := next(t, events); e.Delete != "/a/l" {
		t.Errorf("the watch says %+v", e)
	}
	if _, err := ask[api.LeaseReply](n, api.MethodRegistryRenew, api.LeaseParams{ID: lease.ID}); !errno.Is(err, errno.NotFound) {
		t.Errorf("renew of a lease that is over: %v", err)
	}
	if err := stop(); err == nil {
		t.Error("the stream of a reader who left ended without an error")
	}
	if err := n.dial().Call(n.ctx(), api.MethodRegistryWatch, api.RegistryWatchParams{}, nil); !errno.Is(err, errno.Invalid) {
		t.Errorf("a watch that is no stream: %v", err)
	}
}

// TestStreamsEnd: a stream ends when its reader goes, and with the daemon.
func TestStreamsEnd(t *testing.T) {
	n := start(t)
	n.up()
	for range 20 {
		events, stop := follow[api.RegistryEvent](n, api.MethodRegistryWatch, api.RegistryWatchParams{})
		next(t, events)
		_ = stop()
	}
	// All watches but the new one are gone: their places are free, and goleak
	// looks for what is left of them.
	_, stopRegistry := follow[api.RegistryEvent](n, api.MethodRegistryWatch, api.RegistryWatchParams{})
	events, stopCluster := follow[api.ClusterEvent](n, api.MethodClusterWatch, api.WatchParams{After: 1})
	if e := next(t, events); e.Transition == nil || e.Transition.Epoch != 2 || e.Missed {
		t.Errorf("the watch begins with %+v", e)
	}
	n.stop()
	for { // the fence of a daemon that stops
		if e := next(t, events); e.Serving != nil {
			if e.Serving.Serving || e.Serving.Cause != "the daemon is stopping" {
				t.Errorf("the watch says %+v", e.Serving)
			}
			break
		}
	}
	n.api.Close()
	_, _ = stopRegistry(), stopCluster()
}

// A machine that waits for approval boots as long as it asks.
func TestBooting(t *testing.T) {
	now := time.Now()
	got := booting([]api.MachineInfo{
		{State: api.MachineUp}, {State: api.MachineKnown}, {State: api.MachineDenied, LastSeen: now},
		{State: api.MachineBooting, MachineSpec: api.MachineSpec{Node: 5}},
		{State: api.MachinePending, MachineSpec: api.MachineSpec{Node: 6}, LastSeen: now.Add(-pendingFor + time.Second)},
		{State: api.MachinePending, MachineSpec: api.MachineSpec{Node: 7}, LastSeen: now.Add(-pendingFor)},
	}, now)
	if len(got) != 2 || got[0].Node != 5 || got[1].Node != 6 {
		t.Errorf("these boot: %+v", got)
	}
}

func TestStatus(t *testing.T) {
	n := start(t)
	n.up()
	s := must[api.ClusterStatus](n, api.MethodClusterStatus, api.StatusParams{Barrier: true, Measure: true})
	if s.Name != "test" || s.Self != 1 || !s.Serving || !s.Quorum || s.InitNode != 1 || s.Profile != "fast" || s.Advice != "" || len(s.Nodes) != 1 || s.Strays != 3 {
		t.Errorf("the status is %+v", s)
	}
	if s.Time.Source != api.LocalTime || s.Time.Stratum != 10 || s.Time.Offset != 5 || len(s.Booting) != 1 || s.Booting[0].Phase != "admission" {
		t.Errorf("the time is %+v, what boots is %+v", s.Time, s.Booting)
	}
	info, _ := s.Find(1)
	if info.State != api.Up || info.Role != api.RoleVoter || !info.Init || info.Load == nil || *info.Load != 42 ||
		info.ClockOffset == nil || *info.ClockOffset != 0 || info.Phase != "" || info.Cause != "ready" {
		t.Errorf("the node is %+v", info)
	}
	if m := info.Machine; m == nil || len(m.Links) != 1 || m.Links[0].Name != "ic0" {
		t.Errorf("its machine is %+v", m)
	}
	h := must[api.HistoryReply](n, api.MethodClusterHistory, api.HistoryParams{})
	if h.Oldest != 1 || len(h.Transitions) < 3 || h.Transitions[0].To != api.ComingUp {
		t.Errorf("the history is %+v", h)
	}
	if last := must[api.HistoryReply](n, api.MethodClusterHistory, api.HistoryParams{Limit: 1}); len(last.Transitions) != 1 ||
		last.Transitions[0] != h.Transitions[len(h.Transitions)-1] {
		t.Errorf("the last transition is %+v", last)
	}
	if none := must[api.HistoryReply](n, api.MethodClusterHistory, api.HistoryParams{Node: 2, Limit: -1}); len(none.Transitions) != 0 {
		t.Errorf("of node 2: %+v", none)
	}
	for _, test := range []struct {
		p    api.SetStateParams
		kind errno.Kind
	}{
		{api.SetStateParams{Node: 1, State: "SLEEPING"}, errno.Invalid},
		{api.SetStateParams{Node: 1, State: api.Down}, errno.Invalid},
		{api.SetStateParams{Node: 9, State: api.Shutdown}, errno.NotFound},
	} {
		if _, err := ask[api.SetStateReply](n, api.MethodClusterSetState, test.p); !errno.Is(err, test.kind) {
			t.Errorf("%+v: %v", test.p, err)
		}
	}
	if r := must[api.SetStateReply](n, api.MethodClusterSetState, api.SetStateParams{Node: 1, State: api.Shutdown, Cause: "test"}); r.From != api.Up {
		t.Errorf("it was %v", r.From)
	}
	n.await("SHUTDOWN", func(v *member.View) bool { return v.Get(1).State == member.Shutdown })
}

// TestAdmin: tokens, revocation, and what is refused of force and rejoin.
func TestAdmin(t *testing.T) {
	n := start(t)
	n.up()
	r := must[api.TokenReply](n, api.MethodClusterToken, api.TokenParams{Witness: true})
	if !strings.HasPrefix(r.Token, "ssi1-") || len(r.Addrs) != 1 || r.Addrs[0] != n.addr || time.Until(r.Expires) > api.DefaultTokenTTL {
		t.Errorf("the token expires %v and is good at %v", r.Expires, r.Addrs)
	}
	for _, p := range []api.TokenParams{{TTL: -1}, {TTL: api.MaxTokenTTL + 1}} {
		if _, err := ask[api.TokenReply](n, api.MethodClusterToken, p); !errno.Is(err, errno.Invalid) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	if _, err := ask[api.TokenReply](n, api.MethodClusterToken, api.TokenParams{Node: 1}); !errno.Is(err, errno.Exists) {
		t.Errorf("a token for a number that is up: %v", err)
	}
	if _, err := ask[api.RevokeReply](n, api.MethodClusterRevoke, api.RevokeParams{Node: 9}); !errno.Is(err, errno.NotFound) {
		t.Errorf("revoke of nobody: %v", err)
	}
	if _, err := ask[api.ForceReply](n, api.MethodClusterForce, api.ForceParams{}); !errno.Is(err, errno.Invalid) || !strings.Contains(err.Error(), "can decide") {
		t.Errorf("force: %v", err)
	}
	if _, err := ask[api.RejoinReply](n, api.MethodClusterRejoin, api.RejoinParams{}); !errno.Is(err, errno.Invalid) || !strings.Contains(err.Error(), "only copy") {
		t.Errorf("rejoin: %v", err)
	}
}
