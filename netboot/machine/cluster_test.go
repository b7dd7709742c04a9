package machine

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ssi/cluster"
	"ssi/cluster/member"
	"ssi/internal/api"
	"ssi/internal/config"
	"ssi/internal/errno"
)

// found starts a cluster of one node, on loopback.
func found(t *testing.T) *cluster.Cluster {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "ssi")
	if _, _, err := cluster.Found(cluster.NewCluster{Dir: dir, Name: "test", Node: 1, Profile: "fast", Addr: l.Addr().String()}); err != nil {
		t.Fatal(err)
	}
	c, err := cluster.New(cluster.Config{Dir: dir, RunDir: t.TempDir(), HooksDir: dir, Log: slog.New(slog.DiscardHandler),
		Info: member.Info{Name: "one", Addr: l.Addr().String(), Capable: true}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.Run(ctx, l) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	deadline, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	if v, err := c.Members().Wait(deadline, func(v *member.View) bool { return v.Get(1).State == member.Up && v.Init == 1 }); err != nil {
		t.Fatalf("the cluster does not come up: %+v", v)
	}
	// The founding is written a moment later.
	if _, err := c.Revision().Wait(deadline, func(uint64) bool {
		_, err := c.Registry().Stale().Get(keyNumbers + "/1")
		return err == nil
	}); err != nil {
		t.Fatalf("the cluster keeps the numbers it gave out elsewhere now: %v", err)
	}
	return c
}

// A real cluster: the credential lets one machine join once, as the node that the
// table says.
func TestRealCluster(t *testing.T) {
	c := found(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	table := NewTable(c.Registry(), Of(c))
	near := &fakeNeighbours{}
	adm := NewAdmission(table, near, slog.New(slog.DiscardHandler), func(text string) { t.Errorf("alarm: %s", text) })
	var wg sync.WaitGroup
	run, stop := context.WithCancel(ctx)
	wg.Go(func() { adm.Run(run) })
	defer func() { stop(); wg.Wait() }()

	if cl := Of(c); !cl.Given(1) || cl.Given(2) || cl.State(1) != api.Up || cl.State(2) != api.NeverUp {
		t.Fatalf("given: 1 %v, 2 %v; states: %s, %s", cl.Given(1), cl.Given(2), cl.State(1), cl.State(2))
	}
	added, err := table.Add(ctx, specs("52:54:00:00:00:01\n52:54:00:00:00:02 node=7 name=db"))
	if err != nil || added[0].Node != 2 || added[1].Node != 7 {
		t.Fatalf("got %+v, %v", added, err)
	}
	adm.Booted(mac(2), ip("127.0.0.1"))
	dir := t.TempDir()
	url := serve(t, adm)
	file, err := Join(ctx, dir, url, mac(2).String(), func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	join, err := config.ParseJoin("x", string(file))
	if err != nil {
		t.Fatal(err)
	}
	as := func(dir, name string) (cluster.Identity, error) {
		return cluster.JoinAs(ctx, cluster.JoinRequest{Dir: dir, Token: join.Token, Addrs: join.Addrs, Name: name, Addr: "127.0.0.1:1"})
	}
	who, err := as(filepath.Join(t.TempDir(), "ssi"), "db")
	if err != nil || who.Node != 7 {
		t.Fatalf("joined as %+v, %v", who, err)
	}
	// The token used twice, by a machine that has it in clear.
	if _, err := as(filepath.Join(t.TempDir(), "ssi"), "thief"); err == nil {
		t.Error("the token was good twice")
	}
	// It does not even live long.
	raw, err := c.Registry().Stale().Get(tokenKey(t, c))
	if err != nil {
		t.Fatal(err)
	}
	var rec struct{ Expiry time.Time }
	if err := json.Unmarshal(raw.Value, &rec); err != nil || time.Until(rec.Expiry) > CredentialTTL {
		t.Errorf("the token lives until %v, %v", rec.Expiry, err)
	}

	m, revoked, err := table.Remove(ctx, api.MachineRemoveParams{Machine: "db"})
	if err != nil || !revoked || m.Node != 7 {
		t.Errorf("removed %v, revoked %v, %v", m, revoked, err)
	}
	if _, revoked, err := table.Remove(ctx, api.MachineRemoveParams{Machine: "2"}); err != nil || revoked {
		t.Errorf("one that never joined: revoked %v, %v", revoked, err)
	}
	if _, _, err := table.Remove(ctx, api.MachineRemoveParams{Machine: "2"}); !errno.Is(err, errno.NotFound) {
		t.Errorf("twice: %v", err)
	}
}

// tokenKey is the key of the only token.
func tokenKey(t *testing.T, c *cluster.Cluster) string {
	t.Helper()
	entries, _, err := c.Registry().Stale().List("/sys/token/", 0, "")
	if err != nil || len(entries) != 1 {
		t.Fatalf("%d tokens, %v", len(entries), err)
	}
	return entries[0].Key
}

// The methods of the local socket: who may call them, and what they answer.
func TestControl(t *testing.T) {
	w := newWorld(t)
	dir, err := os.MkdirTemp("", "ssi") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	s := api.NewServer(slog.New(slog.DiscardHandler))
	(&Control{Table: w.table}).Register(s)
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(l) })
	t.Cleanup(func() { s.Close(); wg.Wait(); _ = l.Close() })
	client, err := api.DialPath(t.Context(), filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })

	var list api.MachineListReply
	if err := client.Call(t.Context(), api.MethodMachineList, api.MachineListParams{}, &list); err != nil || list.Machines == nil {
		t.Errorf("an empty table: %+v, %v", list, err)
	}
	if os.Getuid() != 0 {
		t.Skip("not root: the methods that change the table are for root")
	}
	call := func(method string, params, reply any) {
		t.Helper()
		if err := client.Call(t.Context(), method, params, reply); err != nil {
			t.Errorf("%s: %v", method, err)
		}
	}
	var added api.MachineAddReply
	call(api.MethodMachineAdd, api.MachineAddParams{Specs: specs("52:54:00:00:00:01 address=10.0.0.2")}, &added)
	if len(added.Machines) != 1 || added.Machines[0].Node != 2 || added.Machines[0].Address != "10.0.0.2" {
		t.Errorf("added %+v", added)
	}
	name := "db"
	var one api.MachineReply
	call(api.MethodMachineChange, api.MachineChangeParams{Machine: "2", Change: api.MachineChange{Name: &name}}, &one)
	if one.Machine.Name != "db" {
		t.Errorf("changed %+v", one)
	}
	call(api.MethodMachineDeny, api.MachineDenyParams{Machine: mac(3).String()}, &one)
	if one.Machine.State != api.MachineDenied {
		t.Errorf("denied %+v", one)
	}
	call(api.MethodMachineApprove, api.MachineApproveParams{Machine: mac(3).String()}, &one)
	if one.Machine.State != api.MachineKnown || one.Machine.Node != 3 {
		t.Errorf("approved %+v", one)
	}
	var next api.MachineNext
	call(api.MethodMachineNext, api.MachineNextParams{Count: 2, For: time.Minute}, &next)
	if next.Left != 2 {
		t.Errorf("next %+v", next)
	}
	var removed api.MachineRemoveReply
	call(api.MethodMachineRemove, api.MachineRemoveParams{Machine: "db"}, &removed)
	call(api.MethodMachineList, api.MachineListParams{}, &list)
	if len(list.Machines) != 1 || list.Next == nil || removed.Machine.Name != "db" {
		t.Errorf("left %+v", list)
	}
}

func TestOnlyRootChanges(t *testing.T) {
	c := Control{Table: newWorld(t).table}
	for _, h := range []api.Handler{change(c.add), change(c.Table.AllowNext), change(c.change), change(c.remove), change(c.approve), change(c.deny)} {
		err := h(t.Context(), &api.Call{Method: "x", Peer: api.Peer{UID: 1000}})
		if !errno.Is(err, errno.Permission) || !strings.Contains(err.Error(), "only root may do this") {
			t.Errorf("got %v", err)
		}
	}
}
