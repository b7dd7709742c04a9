package ics

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"ssi/internal/errno"
	"ssi/internal/id"
)

func TestCall(t *testing.T) {
	tn := newNet(t, 1, 2)
	got, err := tn.nodes[1].call(t.Context(), 2, "hello")
	must(t, err)
	if got != "hello" {
		t.Fatalf("got %q", got)
	}
	want := Remote{Node: 1, Role: "node", Incarnation: tn.nodes[1].inc, Epoch: 1}
	if who := within(t, "call", tn.nodes[2].echo.caller); who != want {
		t.Fatalf("caller %+v, want %+v", who, want)
	}
}

func TestCallSelf(t *testing.T) {
	tn := newNet(t, 1)
	got, err := tn.nodes[1].call(t.Context(), 1, "me")
	must(t, err)
	if got != "me" {
		t.Fatalf("got %q", got)
	}
	if who := within(t, "call", tn.nodes[1].echo.caller); who.Node != 1 || who.Incarnation != tn.nodes[1].inc {
		t.Fatalf("caller %+v", who)
	}
}

func TestErrorsCross(t *testing.T) {
	tn := newNet(t, 1, 2)
	_, err := tn.nodes[1].call(t.Context(), 2, "fail")
	var e *errno.Error
	if !errors.As(err, &e) || e.Op != "find thing" || e.Node != 7 || e.Kind != errno.NotFound || e.Text != "no such thing" {
		t.Fatalf("got %#v", err)
	}
	_, err = tn.nodes[1].call(t.Context(), 2, "plain")
	wantKind(t, err, errno.Other, "Unary: node 2: something broke")
	_, err = tn.nodes[1].callOn(t.Context(), 2, "test.Echo/Nothing", "x")
	wantKind(t, err, errno.NotFound, "another version")
	_, err = tn.nodes[1].call(t.Context(), 9, "x")
	wantKind(t, err, errno.Unavailable, "node 9: no such node")
}

func TestCallerDeadline(t *testing.T) {
	tn := newNet(t, 1, 2)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := tn.nodes[1].call(ctx, 2, "wait")
	wantKind(t, err, errno.Timeout, "node 2", "no answer in time")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v is no DeadlineExceeded", err)
	}
}

func TestDefaultDeadline(t *testing.T) {
	tn := newNet(t, 1, 2)
	short := tn.start(3, func(c *Config) { c.Limits.CallTimeout = 50 * time.Millisecond })
	tn.view(2)
	_, err := short.call(t.Context(), 2, "wait")
	wantKind(t, err, errno.Timeout)
}

// A call to a peer that leaves ends with the view, not with its deadline.
func TestPeerLeavingEndsCalls(t *testing.T) {
	for name, change := range map[string]func(Peer) Peer{
		"down":      func(p Peer) Peer { p.Member, p.Cause = false, "its lease ran out"; return p },
		"restarted": func(p Peer) Peer { p.Incarnation++; return p },
	} {
		t.Run(name, func(t *testing.T) {
			tn := newNet(t, 1, 2)
			failed := make(chan error, 1)
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				_, err := tn.nodes[1].call(ctx, 2, "wait")
				failed <- err
			}()
			within(t, "start of the call", tn.nodes[2].echo.started)
			peers := tn.peers()
			peers[2] = change(peers[2])
			tn.nodes[1].SetView(2, peers)
			err := within(t, "end of the call", failed)
			text := "its lease ran out"
			if name == "restarted" {
				text = "it restarted"
			}
			wantKind(t, err, errno.Unavailable, "node 2: left the cluster: "+text)
		})
	}
}

// The handler of a caller that left stops, and the caller hears it.
func TestLeavingCallerEndsHandlers(t *testing.T) {
	tn := newNet(t, 1, 2)
	failed := make(chan error, 1)
	go func() {
		_, err := tn.nodes[1].call(t.Context(), 2, "wait")
		failed <- err
	}()
	within(t, "start of the call", tn.nodes[2].echo.started)
	peers := tn.peers()
	delete(peers, 1)
	tn.nodes[2].SetView(2, peers)
	wantKind(t, within(t, "end of the call", failed), errno.Unavailable, "connection lost")
	_, err := tn.nodes[1].call(t.Context(), 2, "again")
	wantKind(t, err, errno.Stale, "node 2: node 1 is not a member")
}

func TestEpochs(t *testing.T) {
	tn := newNet(t, 1, 2)
	one, two := tn.nodes[1], tn.nodes[2]
	t.Run("newer caller is served", func(t *testing.T) {
		peers := tn.peers()
		delete(peers, 1)
		two.SetView(2, peers)
		one.SetView(3, tn.peers())
		_, err := one.call(t.Context(), 2, "x")
		must(t, err)
	})
	t.Run("earlier life of the caller", func(t *testing.T) {
		peers := tn.peers()
		peers[1] = Peer{Addr: one.addr, Member: true, Incarnation: one.inc + 1}
		two.SetView(4, peers)
		_, err := one.call(t.Context(), 2, "x")
		wantKind(t, err, errno.Stale, "earlier life")
		_, err = one.callOn(t.Context(), 2, "test.Control/Unary", "x")
		must(t, err)
	})
	t.Run("earlier life of the callee", func(t *testing.T) {
		two.SetView(5, tn.peers())
		peers := tn.peers()
		peers[2] = Peer{Addr: two.addr, Member: true, Incarnation: two.inc - 1}
		one.SetView(5, peers)
		_, err := one.call(t.Context(), 2, "x")
		wantKind(t, err, errno.Stale, "node 2: the node restarted")
	})
}

func TestFence(t *testing.T) {
	tn := newNet(t, 1, 2)
	failed := make(chan error, 1)
	go func() {
		_, err := tn.nodes[1].call(t.Context(), 2, "wait")
		failed <- err
	}()
	within(t, "start of the call", tn.nodes[2].echo.started)
	tn.nodes[2].SetServing(false, "lease lost")
	wantKind(t, within(t, "end of the call", failed), errno.Fenced, "node 2: fenced: lease lost")
	_, err := tn.nodes[1].call(t.Context(), 2, "x")
	wantKind(t, err, errno.Fenced, "lease lost")
	_, err = tn.nodes[1].callOn(t.Context(), 2, "test.Control/Unary", "x")
	must(t, err)
	_, err = tn.nodes[1].OpenBulk(t.Context(), 2, "echo", nil)
	wantKind(t, err, errno.NotFound) // no such handler here; fencing of streams: TestBulkFence
	tn.nodes[1].Send(2, []byte("still"))
	if m := within(t, "message", tn.nodes[2].echo.messages); m.text != "still" {
		t.Fatalf("got %+v", m)
	}
	tn.nodes[2].SetServing(true, "")
	_, err = tn.nodes[1].call(t.Context(), 2, "x")
	must(t, err)
	// A second fence ends what began under the second permission.
	go func() {
		_, err := tn.nodes[1].call(t.Context(), 2, "wait")
		failed <- err
	}()
	within(t, "start of the call", tn.nodes[2].echo.started)
	tn.nodes[2].SetServing(true, "")
	tn.nodes[2].SetServing(false, "again")
	wantKind(t, within(t, "end of the call", failed), errno.Fenced, "again")
}

// A restarted daemon is reached at once, and meanwhile calls fail at once.
func TestRestart(t *testing.T) {
	tn := newNet(t, 1, 2)
	one := tn.nodes[1]
	failed := make(chan error, 1)
	go func() {
		_, err := one.call(t.Context(), 2, "wait")
		failed <- err
	}()
	within(t, "start of the call", tn.nodes[2].echo.started)
	must(t, tn.nodes[2].Close())
	wantKind(t, within(t, "end of the call", failed), errno.Unavailable, "node 2")
	eventually(t, "refusal of the address", func() bool {
		_, err := one.call(t.Context(), 2, "x")
		wantKind(t, err, errno.Unavailable)
		return strings.Contains(err.Error(), "cannot reach "+tn.nodes[2].addr)
	})
	tn.start(2, nil)
	_, err := tn.nodes[2].call(t.Context(), 2, "self before the view")
	must(t, err)
	tn.view(2)
	eventually(t, "call after the restart", func() bool {
		_, err := one.call(t.Context(), 2, "x")
		return err == nil
	})
}

func TestAddressChange(t *testing.T) {
	tn := newNet(t, 1, 2)
	one := tn.nodes[1]
	_, err := one.call(t.Context(), 2, "x")
	must(t, err)
	must(t, tn.nodes[2].Close())
	inc := tn.nodes[2].inc
	delete(tn.nodes, id.Node(2))
	two := tn.start(2, func(c *Config) { c.Incarnation = inc })
	two.inc = inc
	tn.view(2)
	eventually(t, "call at the new address", func() bool {
		_, err := one.call(t.Context(), 2, "x")
		return err == nil
	})
}

func TestStartingNodeServesOnlyControl(t *testing.T) {
	tn := newNet(t, 1)
	tn.start(2, nil)
	tn.nodes[1].SetView(1, tn.peers())
	_, err := tn.nodes[1].call(t.Context(), 2, "x")
	wantKind(t, err, errno.Unavailable, "node 2: starting")
	_, err = tn.nodes[1].callOn(t.Context(), 2, "test.Control/Unary", "x")
	must(t, err)
}

func TestAfterClose(t *testing.T) {
	tn := newNet(t, 1, 2)
	must(t, tn.nodes[1].Close())
	_, err := tn.nodes[1].call(t.Context(), 2, "x")
	wantKind(t, err, errno.Unavailable)
	_, err = tn.nodes[1].OpenBulk(t.Context(), 2, "x", nil)
	wantKind(t, err, errno.Unavailable)
	tn.nodes[1].Send(2, []byte("x"))
	tn.nodes[1].SetView(9, tn.peers())
	tn.nodes[1].SetServing(false, "closed")
}
