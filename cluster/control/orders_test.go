package control

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"ssi/cluster/member"
	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// ending is the machine that Orders ends.
type ending struct {
	n    *node
	ends chan string
	stop func()
}

func (n *node) obey() *ending {
	e := &ending{n: n, ends: make(chan string, 8)}
	o := Orders{Cluster: n.c, Log: slog.New(slog.DiscardHandler), End: func(action, cause string) { e.ends <- action + "/" + cause }}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { o.Run(ctx) })
	e.stop = func() { cancel(); wg.Wait() }
	n.t.Cleanup(e.stop)
	return e
}

func (e *ending) want(want string) {
	e.n.t.Helper()
	select {
	case got := <-e.ends:
		if got != want {
			e.n.t.Errorf("the machine ends with %q, want %q", got, want)
		}
	case <-time.After(patience):
		e.n.t.Fatalf("the machine does not end with %q", want)
	}
	e.stop()
	e.none()
}

func (e *ending) none() {
	e.n.t.Helper()
	select {
	case got := <-e.ends:
		e.n.t.Errorf("the machine ends with %q", got)
	default:
	}
}

func TestShutdownNow(t *testing.T) {
	n := start(t)
	n.up()
	e := n.obey()
	for _, test := range []struct {
		p    api.ShutdownParams
		kind errno.Kind
	}{
		{api.ShutdownParams{Action: "explode"}, errno.Invalid},
		{api.ShutdownParams{}, errno.Invalid},
		{api.ShutdownParams{Node: 2, Action: api.ActionHalt}, errno.NotFound},
		{api.ShutdownParams{Action: api.ActionHalt, Delay: -1}, errno.Invalid},
		{api.ShutdownParams{Action: api.ActionHalt, Delay: api.MaxShutdownDelay + 1}, errno.Invalid},
	} {
		if _, err := ask[api.ShutdownReply](n, api.MethodClusterShutdown, test.p); !errno.Is(err, test.kind) {
			t.Errorf("%+v: %v", test.p, err)
		}
	}
	e.none()
	r := must[api.ShutdownReply](n, api.MethodClusterShutdown, api.ShutdownParams{Action: api.ActionReboot, Message: "kernel"})
	if r.Node != 1 || time.Since(r.At) > patience {
		t.Errorf("the reply is %+v", r)
	}
	e.want("reboot/shutdown (reboot): kernel")

	// After the reboot the order is still in the registry, and the membership
	// shows the life it was for: it must not be carried out again.
	n.crash()
	e = n.obey()
	n.up()
	e.stop()
	e.none()
	if _, ok := (&Orders{Cluster: n.c, Log: slog.New(slog.DiscardHandler)}).pending(); ok {
		t.Error("the order of the life before waits")
	}
	if _, err := ask[api.ShutdownReply](n, api.MethodClusterShutdown, api.ShutdownParams{Action: api.ActionCancel}); !errno.Is(err, errno.NotFound) {
		t.Errorf("the order of the life before can be cancelled: %v", err)
	}
}

func TestShutdownLater(t *testing.T) {
	n := start(t)
	n.up()
	e := n.obey()
	r := must[api.ShutdownReply](n, api.MethodClusterShutdown, api.ShutdownParams{Action: api.ActionHalt, Delay: time.Hour})
	if d := time.Until(r.At); d < 50*time.Minute || d > time.Hour {
		t.Errorf("it will be in %v", d)
	}
	n.await("SHUTDOWN", func(v *member.View) bool { return v.Get(1).State == member.Shutdown })
	must[api.ShutdownReply](n, api.MethodClusterShutdown, api.ShutdownParams{Action: api.ActionCancel})
	n.await("UP again", func(v *member.View) bool { return v.Get(1).State == member.Up })
	if _, ok := (&Orders{Cluster: n.c, Log: slog.New(slog.DiscardHandler)}).pending(); ok {
		t.Error("the order waits although it was cancelled")
	}
	e.none()
	// What does not wait cannot be cancelled, and nothing is changed by trying.
	if _, err := ask[api.ShutdownReply](n, api.MethodClusterShutdown, api.ShutdownParams{Action: api.ActionCancel}); !errno.Is(err, errno.NotFound) {
		t.Errorf("cancelled twice: %v", err)
	}
	must[api.SetStateReply](n, api.MethodClusterSetState, api.SetStateParams{Node: 1, State: api.Shutdown, Cause: "drained"})
	if _, err := ask[api.ShutdownReply](n, api.MethodClusterShutdown, api.ShutdownParams{Action: api.ActionCancel}); !errno.Is(err, errno.NotFound) {
		t.Errorf("cancelled a drain: %v", err)
	}
	n.await("still drained", func(v *member.View) bool { return v.Get(1).State == member.Shutdown })
	must[api.ShutdownReply](n, api.MethodClusterShutdown, api.ShutdownParams{Action: api.ActionPowerOff, Delay: 50 * time.Millisecond})
	e.want("poweroff/shutdown (poweroff)")
}

// TestGoingDown: an operator's word that a node goes down ends the machine, once.
func TestGoingDown(t *testing.T) {
	n := start(t)
	n.up()
	e := n.obey()
	must[api.SetStateReply](n, api.MethodClusterSetState, api.SetStateParams{Node: 1, State: api.GoingDown, Cause: "moving house"})
	e.want("poweroff/moving house")
	n.crash()
	e = n.obey()
	n.up()
	e.stop()
	e.none()
}

// TestOrderGarbage: an order that cannot be read is none.
func TestOrderGarbage(t *testing.T) {
	n := start(t)
	n.up()
	e := n.obey()
	if err := n.c.Order(n.ctx(), id.Node(1), []byte("garbage")); err != nil {
		t.Fatal(err)
	}
	if err := n.c.Barrier(n.ctx()); err != nil {
		t.Fatal(err)
	}
	e.stop()
	e.none()
}
