package applet_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// now is the moment at which all script tests happen.
func now() time.Time { return time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC) }

// fakeDaemon is a node daemon with canned answers; scripts change its mood.
type fakeDaemon struct {
	server *api.Server
	served chan error

	mu     sync.Mutex
	status api.ClusterStatus
	kvs    map[string]api.KV
	rev    uint64
	calls  []string         // what changed something: "METHOD PARAMETERS"
	fail   map[string]error // method → what it answers instead
}

// newFakeDaemon serves a fake daemon on a socket.
func newFakeDaemon(socket string) (*fakeDaemon, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	d := &fakeDaemon{
		server: api.NewServer(slog.New(slog.DiscardHandler)),
		served: make(chan error, 1),
		status: cannedStatus(), kvs: map[string]api.KV{}, rev: 100,
		fail: map[string]error{},
	}
	handle(d, api.MethodClusterStatus, func(p api.StatusParams) (any, error) { return d.answer(p), nil })
	handle(d, api.MethodClusterHistory, d.history)
	handle(d, api.MethodClusterSetState, func(p api.SetStateParams) (any, error) {
		return api.SetStateReply{Transition: 13, From: api.Up}, d.note(api.MethodClusterSetState, p)
	})
	handle(d, api.MethodClusterShutdown, func(p api.ShutdownParams) (any, error) {
		if p.Action == api.ActionCancel && p.Node != 2 {
			return nil, errno.New(errno.NotFound, "shutdown", p.Node, "no shutdown waits for its time")
		}
		return api.ShutdownReply{Node: max(p.Node, 1), At: now().Add(p.Delay)}, d.note(api.MethodClusterShutdown, p)
	})
	handle(d, api.MethodClusterToken, func(p api.TokenParams) (any, error) {
		return api.TokenReply{Token: "ssi1-secret", Expires: now().Add(p.TTL), Addrs: []string{"10.85.0.1:1985", "10.85.0.2:1985"}}, d.note(api.MethodClusterToken, p)
	})
	handle(d, api.MethodClusterRevoke, func(p api.RevokeParams) (any, error) {
		return api.RevokeReply{Node: p.Node}, d.note(api.MethodClusterRevoke, p)
	})
	handle(d, api.MethodClusterForce, func(p api.ForceParams) (any, error) {
		return api.ForceReply{Recovery: 1, Lost: []id.Node{2, 3}}, d.note(api.MethodClusterForce, p)
	})
	handle(d, api.MethodClusterRejoin, func(p api.RejoinParams) (any, error) {
		return api.RejoinReply{Aside: "/var/lib/ssi/raft.old"}, d.note(api.MethodClusterRejoin, p)
	})
	handle(d, api.ProcessLoads, func(api.ListLoads) (any, error) { return d.loads(), nil })
	handle(d, api.MethodRegistryGet, d.get)
	handle(d, api.MethodRegistryList, d.list)
	handle(d, api.MethodRegistryPut, func(p api.RegistryPutParams) (any, error) { return d.put(p.Key, p.Value, p.Lease) })
	handle(d, api.MethodRegistryCAS, d.cas)
	handle(d, api.MethodRegistryDelete, d.del)
	handle(d, api.MethodRegistryGrant, func(p api.LeaseGrantParams) (any, error) {
		return api.LeaseReply{ID: 7, TTL: p.TTL}, d.note(api.MethodRegistryGrant, p)
	})
	handle(d, api.MethodRegistryRenew, func(p api.LeaseParams) (any, error) {
		return api.LeaseReply{ID: p.ID}, d.note(api.MethodRegistryRenew, p)
	})
	handle(d, api.MethodRegistryRevoke, func(p api.LeaseParams) (any, error) {
		return api.LeaseReply{ID: p.ID}, d.note(api.MethodRegistryRevoke, p)
	})
	d.handleMachines()
	d.server.Handle(api.MethodClusterWatch, d.watch)
	d.server.Handle(api.MethodRegistryWatch, d.watchRegistry)
	go func() { d.served <- d.server.Serve(l) }()
	return d, nil
}

func (d *fakeDaemon) close() {
	d.server.Close()
	<-d.served
}

// handle adds a method that answers once, under the lock of the daemon.
func handle[P any](d *fakeDaemon, method string, f func(P) (any, error)) {
	d.server.Handle(method, func(_ context.Context, c *api.Call) error {
		var p P
		if err := c.Params(&p); err != nil {
			return err
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if err := d.fail[method]; err != nil {
			return err
		}
		res, err := f(p)
		if err != nil {
			return err
		}
		return c.Reply(res)
	})
}

// note remembers a call that changes something.
func (d *fakeDaemon) note(method string, params any) error {
	b, err := json.Marshal(params)
	d.calls = append(d.calls, method+" "+string(b))
	return err
}

// mood changes the answers.
func (d *fakeDaemon) mood(words []string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch words[0] {
	case "fenced":
		d.status.Serving, d.status.Cause = false, "no contact with the init node for 3s"
		d.status.Quorum, d.status.InitNode = false, 0
		d.status.Advice = "2 of 3 voters are out of reach: start them, or see `cluster force`"
	case "idle": // nobody is UP
		for i := range d.status.Nodes {
			d.status.Nodes[i].State = api.Down
		}
	case "fail": // fail METHOD KIND TEXT…
		kinds := map[string]errno.Kind{"noquorum": errno.NoQuorum, "permission": errno.Permission, "exists": errno.Exists, "full": errno.Full}
		d.fail[words[1]] = errno.New(kinds[words[2]], "", 0, "%s", strings.Join(words[3:], " "))
	default:
		return fmt.Errorf("no mood %q", words[0])
	}
	return nil
}

func cannedStatus() api.ClusterStatus {
	load := func(n int) *int { return &n }
	offset := 1500 * time.Microsecond
	at := func(d time.Duration) time.Time { return now().Add(-d) }
	return api.ClusterStatus{
		Name: "lab", ID: "00112233445566778899aabbccddeeff", Self: 1, Profile: "fast", PIDShift: 15,
		Transition: 12, InitNode: 1, InitTerm: 2, Quorum: true, Serving: true,
		Time: api.TimeStatus{Source: "192.0.2.1:123", Stratum: 3, Offset: -13 * time.Microsecond, Delay: 412 * time.Microsecond,
			Frequency: 7.25, Updated: at(8 * time.Second), Disciplined: true, Serving: true},
		Booting: []api.MachineInfo{
			{MachineSpec: api.MachineSpec{MACs: []string{"52:54:00:55:00:02"}, Node: 4}, State: api.MachineBooting,
				Phase: "admission", PhaseSince: at(12 * time.Second), Text: "the key is checked"},
			{MachineSpec: api.MachineSpec{MACs: []string{"52:54:00:55:00:09"}}, State: api.MachinePending, Since: at(70 * time.Second)},
		},
		Nodes: []api.NodeInfo{
			{Node: 1, Name: "node1", Addr: "10.85.0.1:1985", State: api.Up, Role: api.RoleVoter, Capable: true, Init: true, Classes: []string{"web"},
				Incarnation: 0xabc, Transition: 3, Since: at(2*time.Hour + 3*time.Minute), Cause: "ready", Load: load(12), Machine: cannedMachine()},
			{Node: 2, Name: "node2", Addr: "10.85.0.2:1985", State: api.Up, Role: api.RoleVoter, Capable: true, Classes: []string{"web", "db"},
				Incarnation: 0xdef, Transition: 7, Since: at(65 * time.Second), Cause: "ready", Load: load(3), ClockOffset: &offset, Others: []string{"10.86.0.2:1985"},
				Machine: &api.MachineReport{Links: []api.LinkInfo{{Name: "eth0", Kind: "veth", State: "up", Speed: 10000, Interconnect: true}}}},
			{Node: 3, Name: "node3", Addr: "10.85.0.3:1985", State: api.Down, Role: api.RoleClient,
				Transition: 12, Since: at(26 * time.Hour), Cause: "no contact for 1.3s"},
			{Node: 4, Name: "node4", Addr: "10.85.0.4:1985", State: api.ComingUp, Role: api.RoleClient,
				Transition: 11, Since: at(time.Second), Cause: "joins", Phase: "catching up"},
		},
	}
}

// answer is the status; what is measured only if they were asked for.
func (d *fakeDaemon) answer(p api.StatusParams) api.ClusterStatus {
	s := d.status
	if p.Measure {
		return s
	}
	s.Nodes = slices.Clone(s.Nodes)
	for i := range s.Nodes {
		s.Nodes[i].Load, s.Nodes[i].ClockOffset, s.Nodes[i].Machine = nil, nil, nil
	}
	return s
}

// cannedMachine has a bond that lost a link, and started badly.
func cannedMachine() *api.MachineReport {
	return &api.MachineReport{
		Links: []api.LinkInfo{
			{Name: "ic0", Kind: "bond", State: "up", Speed: 1000, Interconnect: true, Addrs: []netip.Prefix{netip.MustParsePrefix("10.85.0.1/24")},
				Mode: "active-backup", Active: "eth1"},
			{Name: "eth0", State: "no carrier", Master: "ic0", Losses: 3, Errors: 17, Dropped: 2},
			{Name: "eth1", State: "up", Speed: 100, Master: "ic0"},
			{Name: "eth2", State: "missing", Why: "there is no interface eth2", Since: now().Add(-90 * time.Second)},
		},
		Boot: &api.BootInfo{Stage: "system", State: "done", Took: 12340 * time.Millisecond, Phases: []api.BootPhase{
			{Name: "modules", State: "done", Took: 5740 * time.Millisecond},
			{Name: "mounts", State: "done", Took: 1200 * time.Millisecond},
			{Name: "swap", State: "failed", Took: 30 * time.Millisecond, Why: "/dev/sdb2: no such device"},
			{Name: "sysctl", State: "skipped", Why: "there is none"},
		}},
	}
}

func cannedHistory() []api.Transition {
	t := func(n id.Epoch, node id.Node, from, to api.State, cause string) api.Transition {
		return api.Transition{Epoch: n, Time: now().Add(time.Duration(n) * time.Minute), Node: node, From: from, To: to, Cause: cause}
	}
	return []api.Transition{
		t(1, 1, api.NeverUp, api.ComingUp, "founds the cluster"),
		{Epoch: 2, Time: now().Add(2 * time.Minute), Node: 1, Term: 2, Cause: "elected"},
		t(3, 1, api.ComingUp, api.Up, "ready"),
		t(6, 2, api.NeverUp, api.ComingUp, "joins"),
		t(7, 2, api.ComingUp, api.Up, "ready"),
	}
}

func (d *fakeDaemon) history(p api.HistoryParams) (any, error) {
	all := slices.DeleteFunc(cannedHistory(), func(t api.Transition) bool {
		return p.Node != 0 && t.Node != p.Node || t.Epoch <= p.After
	})
	if p.Limit > 0 && len(all) > p.Limit {
		all = all[len(all)-p.Limit:]
	}
	return api.HistoryReply{Transitions: all, Oldest: 1}, nil
}

// watch sends the history, a fence, and ends.
func (d *fakeDaemon) watch(_ context.Context, c *api.Call) error {
	var p api.WatchParams
	if err := c.Params(&p); err != nil {
		return err
	}
	for _, t := range cannedHistory() {
		if t.Epoch > p.After {
			if err := c.Send(api.ClusterEvent{Missed: t.Epoch == 3, Transition: &t}); err != nil {
				return err
			}
		}
	}
	if err := c.Send(api.ClusterEvent{Serving: &api.ServingEvent{Time: now(), Cause: "cut off"}}); err != nil {
		return err
	}
	return errno.New(errno.Unavailable, "watch", 0, "the daemon restarts")
}

func (d *fakeDaemon) loads() api.Loads {
	var loads api.Loads
	for _, n := range d.status.Nodes {
		if n.State == api.Up {
			loads.Loads = append(loads.Loads, api.Load{Node: n.Node, Value: *n.Load, CPUs: 2})
		}
	}
	return loads
}

func (d *fakeDaemon) get(p api.RegistryGetParams) (any, error) {
	kv, ok := d.kvs[p.Key]
	if !ok {
		return nil, errno.New(errno.NotFound, "registry get", 0, "there is no key %q", p.Key)
	}
	return api.RegistryGetReply{KV: kv, Revision: d.rev}, nil
}

// list answers in pages of two keys.
func (d *fakeDaemon) list(p api.RegistryListParams) (any, error) {
	res := api.RegistryListReply{Revision: d.rev}
	for _, key := range slices.Sorted(maps.Keys(d.kvs)) {
		if !strings.HasPrefix(key, p.Prefix) || key <= p.After {
			continue
		}
		if len(res.KVs) == 2 {
			res.More = true
			break
		}
		kv := d.kvs[key]
		if p.KeysOnly {
			kv.Value = nil
		}
		res.KVs = append(res.KVs, kv)
	}
	return res, nil
}

func (d *fakeDaemon) put(key string, value []byte, lease uint64) (any, error) {
	d.rev++
	kv := d.kvs[key]
	if kv.Create == 0 {
		kv.Create = d.rev
	}
	kv.Key, kv.Value, kv.Mod, kv.Version, kv.Lease = key, value, d.rev, kv.Version+1, lease
	d.kvs[key] = kv
	return api.RegistryWriteReply{Revision: d.rev}, nil
}

func (d *fakeDaemon) cas(p api.RegistryCASParams) (any, error) {
	if have := d.kvs[p.Key].Mod; have != p.Mod {
		return nil, errno.New(errno.Exists, "registry cas", 0, "%s was last changed by revision %d, not %d", p.Key, have, p.Mod)
	}
	return d.put(p.Key, p.Value, p.Lease)
}

func (d *fakeDaemon) del(p api.RegistryDeleteParams) (any, error) {
	n := 0
	for key, kv := range d.kvs {
		if key == p.Key || p.Prefix && strings.HasPrefix(key, p.Key) {
			if p.Mod != 0 && p.Mod != kv.Mod {
				return nil, errno.New(errno.Exists, "registry delete", 0, "%s was last changed by revision %d, not %d", p.Key, kv.Mod, p.Mod)
			}
			delete(d.kvs, key)
			n++
		}
	}
	if n == 0 && !p.Prefix {
		return nil, errno.New(errno.NotFound, "registry delete", 0, "there is no key %q", p.Key)
	}
	d.rev++
	return api.RegistryDeleteReply{Deleted: n, Revision: d.rev}, nil
}

// watchRegistry sends a start, a put, a delete, and ends.
func (d *fakeDaemon) watchRegistry(_ context.Context, c *api.Call) error {
	for _, e := range []api.RegistryEvent{
		{Revision: 100},
		{Revision: 101, Put: &api.KV{Key: "/a", Value: []byte("x y\n"), Create: 101, Mod: 101, Version: 1}},
		{Revision: 102, Delete: "/a"},
	} {
		if err := c.Send(e); err != nil {
			return err
		}
	}
	return errno.New(errno.Stale, "registry watch", 0, "the changes after revision 102 are no longer kept; list again")
}
