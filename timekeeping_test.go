package main

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"ssi/cluster"
	"ssi/cluster/member"
	"ssi/cluster/ntp"
	"ssi/internal/id"
)

// shiftedClock is the system's clock and an offset.
type shiftedClock struct {
	mu    sync.Mutex
	shift time.Duration
	steps int
}

func (c *shiftedClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.shift)
}

func (c *shiftedClock) Adjust(float64, time.Duration) error { return nil }

func (c *shiftedClock) Step(by time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shift += by
	c.steps++
	return nil
}

func (c *shiftedClock) state() (shift time.Duration, steps int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shift, c.steps
}

// news is a cluster.Published that tests set.
type news[T any] struct {
	mu      sync.Mutex
	value   T
	changed chan struct{}
}

func newNews[T any](v T) *news[T] { return &news[T]{value: v, changed: make(chan struct{})} }

func (n *news[T]) Get() (T, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.value, n.changed
}

func (n *news[T]) set(v T) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.value = v
	close(n.changed)
	n.changed = make(chan struct{})
}

// timeView is a cluster of two nodes on the loopback interface.
func timeView(holder id.Node) *member.View {
	return &member.View{Init: holder, Nodes: []member.Node{
		{Node: 1, Info: member.Info{Addr: "127.0.0.1:1985"}}, {Node: 2, Info: member.Info{Addr: "127.0.0.2:1985"}},
	}}
}

// timeNode is one of them.
type timeNode struct {
	*timekeeping
	clock   shiftedClock
	view    *news[*member.View]
	serving *news[cluster.Serving]
}

func newTimeNode(t *testing.T, self id.Node, port uint16, off time.Duration, view *member.View) *timeNode {
	t.Helper()
	n := &timeNode{clock: shiftedClock{shift: off}, view: newNews(view), serving: newNews(cluster.Serving{OK: true})}
	n.timekeeping = &timekeeping{self: self, port: port, mark: filepath.Join(t.TempDir(), "mark"), log: slog.New(slog.DiscardHandler)}
	own, _ := hostOf(view.Get(self).Info.Addr)
	n.conf = ntp.Config{Discipline: true, Boot: true, Serve: true, Listen: []netip.AddrPort{netip.AddrPortFrom(own, port)},
		Log: n.log, Clock: &n.clock, Now: n.clock.now}
	n.allowed.Store(&timeClients{})
	if err := n.open(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { n.follow(ctx, n.view, n.serving) })
	t.Cleanup(func() {
		stop()
		wg.Wait()
		n.close()
	})
	return n
}

// timePort is a UDP port that nobody uses.
func timePort(t *testing.T) uint16 {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("waited in vain for: " + what)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// A node that boots has its clock set by the holder of init; nothing is stepped
// when another one takes over, not even the clock that was the reference.
func TestTimekeeping(t *testing.T) {
	port := timePort(t)
	first := newTimeNode(t, 1, port, 0, timeView(1))
	waitFor(t, "node 1 serving", func() bool { return first.status().Serving })
	if s := first.status(); s.Source != "local" || s.Stratum != ntp.LocalStratum {
		t.Errorf("node 1 is %+v", s)
	}
	if !exists(first.mark) {
		t.Error("the clock of the reference may be set yet")
	}
	second := newTimeNode(t, 2, port, 3*time.Second, timeView(1))
	waitFor(t, "node 2 following", func() bool { return exists(second.mark) })
	shift, steps := second.clock.state()
	if steps != 1 || shift.Abs() > time.Second {
		t.Errorf("the clock of node 2 is %v off after %d steps", shift, steps)
	}
	waitFor(t, "the status of node 2", func() bool {
		s := second.status()
		return s.Disciplined && s.Stratum == ntp.LocalStratum+1 && !s.Serving && s.Source == netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String()
	})

	if err := second.clock.Step(20 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	second.view.set(timeView(2))
	waitFor(t, "node 2 serving", func() bool { return second.status().Serving })
	first.view.set(timeView(2))
	waitFor(t, "node 1 following node 2", func() bool { return first.status().Stratum == ntp.LocalStratum+1 })
	if _, steps := first.clock.state(); steps != 0 {
		t.Error("a clock that was the reference was stepped")
	}
}

// A fenced node goes on with whom it followed.
func TestTimekeepingFenced(t *testing.T) {
	n := newTimeNode(t, 2, timePort(t), 0, timeView(2))
	waitFor(t, "the role", func() bool { return n.status().Serving })
	n.serving.set(cluster.Serving{})
	n.view.set(timeView(1))
	last := timeView(1)
	last.Nodes = append(last.Nodes, member.Node{Node: 3, Info: member.Info{Addr: "127.0.0.3:1985"}})
	n.view.set(last)
	waitFor(t, "the view", func() bool { return n.allowed.Load().nodes[netip.MustParseAddr("127.0.0.3")] })
	if !n.status().Serving {
		t.Error("a fenced node believed what it knew of the cluster")
	}
	n.serving.set(cluster.Serving{OK: true})
	waitFor(t, "node 1 being followed", func() bool { return !n.status().Serving })
}

func TestTimeRole(t *testing.T) {
	k := &timekeeping{self: 1, port: 123}
	if r := k.role(timeView(1)); r != (ntp.Role{Init: true}) {
		t.Errorf("the holder of init is %+v", r)
	}
	if r := k.role(timeView(2)); r.Init || r.Addr != netip.MustParseAddrPort("127.0.0.2:123") {
		t.Errorf("another node is %+v", r)
	}
	for _, v := range []*member.View{{}, timeView(7), {Init: 2, Nodes: []member.Node{{Node: 2, Info: member.Info{Addr: "node2:1985"}}}}} {
		if r := k.role(v); r != (ntp.Role{}) {
			t.Errorf("%+v: %+v", v, r)
		}
	}
}

func TestTimeClients(t *testing.T) {
	k := &timekeeping{}
	k.allowed.Store(&timeClients{booted: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}})
	k.take(timeView(1))
	for addr, want := range map[string]bool{
		"127.0.0.2": true, "::ffff:127.0.0.1": true, "10.1.255.3": true, "::ffff:10.1.0.3": true,
		"127.0.0.3": false, "10.2.0.1": false, "::1": false,
	} {
		if got := k.allowed.Load().allow(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
}

// A machine that boots gets the time before it is a node, once.
func TestSetClock(t *testing.T) {
	port := timePort(t)
	server := newTimeNode(t, 1, port, 0, timeView(1))
	waitFor(t, "the server", func() bool { return server.status().Serving })
	mark := filepath.Join(t.TempDir(), "mark")
	clock := &shiftedClock{shift: -time.Hour}
	c := ntp.Config{Discipline: true, Boot: true, Log: server.log, Clock: clock, Now: clock.now}
	if err := setClock(t.Context(), c, "http://127.0.0.1:8067", mark, port); err != nil || !exists(mark) {
		t.Fatalf("it was not set: %v", err)
	}
	if shift, steps := clock.state(); shift.Abs() > time.Second || steps != 1 {
		t.Errorf("it is %v off after %d steps", shift, steps)
	}
	for _, url := range []string{"http://127.0.0.3:8067", "http://node1:8067", "::"} {
		mark := filepath.Join(t.TempDir(), "mark")
		if err := setClock(t.Context(), c, url, mark, port); err == nil || exists(mark) {
			t.Errorf("%s: no error", url)
		}
	}
}

// Where another init cares for the machine, its clock is left alone.
func TestTimeOfOthers(t *testing.T) {
	if ownsMachine() {
		t.Skip("ssi is the init of this machine")
	}
	n := &nodeRole{log: slog.New(slog.DiscardHandler)}
	n.cfg.Time.Serve = true
	if c := n.timeConfig(); c.Discipline || c.Why == "" {
		t.Errorf("the clock would be set: %+v", c)
	}
	k, err := n.openTimekeeping(1, "127.0.0.1:1985")
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	if k.conf.Serve || k.conf.Listen != nil || k.conf.Dir != "" {
		t.Errorf("it would serve: %+v", k.conf)
	}
}
