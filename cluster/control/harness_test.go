package control

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ssi/cluster"
	"ssi/cluster/member"
	"ssi/internal/api"
	"ssi/internal/id"
)

// patience bounds every wait of the tests.
const patience = 40 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a cluster of one node with its local socket.
type node struct {
	t      *testing.T
	c      *cluster.Cluster
	dir    string
	run    string
	addr   string
	socket string

	stop  context.CancelFunc
	ended sync.WaitGroup
	api   *api.Server
}

func start(t *testing.T) *node {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: filepath.Join(t.TempDir(), "ssi"), run: t.TempDir(), addr: l.Addr().String()}
	if _, _, err := cluster.Found(cluster.NewCluster{Dir: n.dir, Name: "test", Node: 1, Profile: "fast", Addr: n.addr}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	n.boot()
	t.Cleanup(func() { n.halt() })
	return n
}

// boot starts the daemon.
func (n *node) boot() {
	n.t.Helper()
	log := slog.New(slog.DiscardHandler)
	c, err := cluster.New(cluster.Config{Dir: n.dir, RunDir: n.run, HooksDir: n.dir, Log: log,
		Info: member.Info{Name: "one", Addr: n.addr, Capable: true}})
	if err != nil {
		n.t.Fatal(err)
	}
	l, err := net.Listen("tcp", n.addr)
	if err != nil {
		n.t.Fatal(err)
	}
	sockets, err := os.MkdirTemp("", "ssi") // t.TempDir may be too long for a socket
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = os.RemoveAll(sockets) })
	n.socket = filepath.Join(sockets, "s")
	local, err := net.ListenUnix("unix", &net.UnixAddr{Name: n.socket, Net: "unix"})
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	n.c, n.stop, n.api = c, stop, api.NewServer(log)
	control := &Control{
		Cluster: c, Loads: func(context.Context) map[id.Node]int { return map[id.Node]int{1: 42} },
		Reports: func(context.Context) map[id.Node]api.MachineReport {
			return map[id.Node]api.MachineReport{1: {Links: []api.LinkInfo{{Name: "ic0", State: "up"}}}, 7: {}}
		},
		Strays: func() uint64 { return 3 },
		Time:   func() api.TimeStatus { return api.TimeStatus{Source: api.LocalTime, Stratum: 10, Offset: 5} },
		Machines: func() []api.MachineInfo {
			return []api.MachineInfo{{State: api.MachineKnown}, {State: api.MachineBooting, Phase: "admission"}}
		},
	}
	control.Register(n.api)
	n.ended.Go(func() { _ = c.Run(ctx, l) })
	n.ended.Go(func() {
		if err := n.api.Serve(local); err != nil {
			n.t.Error(err)
		}
		_ = local.Close()
	})
}

// up waits until the node is.
func (n *node) up() {
	n.t.Helper()
	n.await("the node UP", func(v *member.View) bool {
		return v.Get(1).State == member.Up && v.Get(1).Incarnation == n.c.Incarnation() && v.Init == 1
	})
	if _, err := n.c.Serving().Wait(n.ctx(), func(s cluster.Serving) bool { return s.OK }); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) await(what string, ok func(*member.View) bool) {
	n.t.Helper()
	if v, err := n.c.Members().Wait(n.ctx(), ok); err != nil {
		n.t.Fatalf("waited in vain for %s: %+v", what, v)
	}
}

// halt ends the daemon.
func (n *node) halt() {
	n.stop()
	n.api.Close()
	n.ended.Wait()
}

// crash cuts the power and starts the machine again.
func (n *node) crash() {
	n.t.Helper()
	n.halt()
	n.run = n.t.TempDir()
	n.boot()
}

func (n *node) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	n.t.Cleanup(cancel)
	return ctx
}

func (n *node) dial() *api.Client {
	n.t.Helper()
	client, err := api.DialPath(n.ctx(), n.socket)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = client.Close() })
	return client
}

// ask makes one call.
func ask[R any](n *node, method string, params any) (R, error) {
	n.t.Helper()
	var r R
	err := n.dial().Call(n.ctx(), method, params, &r)
	return r, err
}

// must is ask of what succeeds.
func must[R any](n *node, method string, params any) R {
	n.t.Helper()
	r, err := ask[R](n, method, params)
	if err != nil {
		n.t.Fatalf("%s: %v", method, err)
	}
	return r
}

// follow streams replies until stop is called, which waits for the end and
// returns it.
func follow[R any](n *node, method string, params any) (replies <-chan R, stop func() error) {
	n.t.Helper()
	client := n.dial()
	ch := make(chan R, 1024)
	ctx, cancel := context.WithCancel(n.ctx())
	var wg sync.WaitGroup
	var err error
	wg.Go(func() {
		err = client.Stream(ctx, method, params, func(raw json.RawMessage) error {
			var r R
			if err := json.Unmarshal(raw, &r); err != nil {
				return err
			}
			ch <- r
			return nil
		})
		close(ch)
	})
	return ch, func() error {
		cancel()
		wg.Wait()
		_ = client.Close()
		return err
	}
}

func next[R any](t *testing.T, ch <-chan R) R {
	t.Helper()
	select {
	case r, ok := <-ch:
		if !ok {
			t.Fatal("the stream ended")
		}
		return r
	case <-time.After(patience):
		t.Fatal("the stream says nothing")
	}
	panic("not reached")
}
