package ics

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"ssi/internal/errno"
)

// stream asks for so many items of a size; wait: and no end after them.
func (n *testNode) stream(ctx context.Context, times, size int, wait bool, take func([]byte) error) error {
	ask := fmt.Sprintf("%d %d %s", times, size, map[bool]string{true: "wait", false: "end"}[wait])
	return n.Stream(ctx, 2, "test.Echo/Stream", &wrapperspb.BytesValue{Value: []byte(ask)}, func(b []byte) error {
		var v wrapperspb.BytesValue
		if err := proto.Unmarshal(b, &v); err != nil {
			return err
		}
		return take(v.GetValue())
	})
}

func TestStream(t *testing.T) {
	tn := newNet(t, 1, 2)
	for _, c := range []struct{ times, size int }{{0, 8}, {1, 8}, {1000, 100}, {300, 64 << 10}, {3, 5 << 20}} {
		next := 0
		must(t, tn.nodes[1].stream(t.Context(), c.times, c.size, false, func(b []byte) error {
			if want := fmt.Sprintf("%08d", next); len(b) != c.size || string(b[:8]) != want {
				return fmt.Errorf("item %d: %d bytes, %q", next, len(b), b[:8])
			}
			next++
			return nil
		}))
		if next != c.times {
			t.Fatalf("%d items of %d", next, c.times)
		}
	}
	own := errors.New("enough")
	if err := tn.nodes[1].stream(t.Context(), 10, 8, false, func([]byte) error { return own }); err != own {
		t.Fatalf("%v, want the caller's own error", err)
	}
	err := tn.nodes[1].stream(t.Context(), 1, MaxCall, false, func([]byte) error { return nil })
	wantKind(t, err, errno.Full, "Stream: node 2", "at most")
}

// What ends a stream that is open.
func TestStreamEnds(t *testing.T) {
	tn := newNet(t, 1, 2)
	open := func(ctx context.Context) <-chan error {
		first, end := make(chan struct{}, 1), make(chan error, 1)
		go func() {
			end <- tn.nodes[1].stream(ctx, 1, 8, true, func([]byte) error { signal(first); return nil })
			signal(first)
		}()
		within(t, "first item, or the end", first)
		return end
	}
	idle := func() {
		eventually(t, "end of the handler", func() bool { return callsOn(tn.nodes[2]) == 0 })
	}
	ctx, cancel := context.WithCancel(t.Context())
	end := open(ctx)
	cancel()
	wantKind(t, within(t, "end of the stream", end), errno.Unavailable, "cancelled")
	idle()
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	wantKind(t, within(t, "end of the stream", open(ctx)), errno.Timeout)
	idle()
	end = open(t.Context())
	tn.nodes[2].SetServing(false, "lease lost")
	wantKind(t, within(t, "end of the stream", end), errno.Fenced, "lease lost")
	tn.nodes[2].SetServing(true, "")
	end = open(t.Context())
	peers := tn.peers()
	peers[2] = Peer{Addr: tn.nodes[2].addr, Cause: "crashed"}
	tn.nodes[1].SetView(2, peers)
	wantKind(t, within(t, "end of the stream", end), errno.Unavailable, "left the cluster: crashed")
	idle()
}

// callsOn is how many calls a node serves.
func callsOn(n *testNode) (sum int) {
	for _, c := range n.connsWhere(func(c *conn) bool { return c.calls != nil }) {
		c.calls.mu.Lock()
		sum += len(c.calls.calls)
		c.calls.mu.Unlock()
	}
	return sum
}

// A reader that rests holds up its own stream only, and the sender keeps no
// more than a window for it.
func TestSlowReader(t *testing.T) {
	const times = 150
	for _, size := range []int{8, 200 << 10} {
		tn := newNet(t, 1, 2)
		first, goOn, end := make(chan struct{}, 1), make(chan struct{}), make(chan error, 1)
		got := 0
		go func() {
			end <- tn.nodes[1].stream(t.Context(), times, size, false, func([]byte) error {
				signal(first)
				<-goOn
				got++
				return nil
			})
		}()
		within(t, "first item", first)
		most := int64(callWindow/costOf(make([]byte, size)) + 2)
		for range 50 {
			_, err := tn.nodes[1].call(t.Context(), 2, "x")
			must(t, err)
		}
		eventually(t, "the window is used", func() bool { return tn.nodes[2].echo.sent.Load() >= most-2 })
		if sent := tn.nodes[2].echo.sent.Load(); sent > most {
			t.Fatalf("%d items of %d bytes are on their way, at most %d should be", sent, size, most)
		}
		close(goOn)
		must(t, within(t, "end of the stream", end))
		if got != times {
			t.Fatalf("%d items", got)
		}
	}
}

func TestCallsAreBounded(t *testing.T) {
	tn := newNet(t, 1)
	two := tn.start(2, func(c *Config) { c.Limits.CallsPerConn = 3 })
	tn.view(1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 3)
	for range 3 {
		go func() {
			_, err := tn.nodes[1].call(ctx, 2, "wait")
			ended <- err
		}()
		within(t, "start of a call", two.echo.started)
	}
	_, err := tn.nodes[1].call(t.Context(), 2, "x")
	wantKind(t, err, errno.Full, "node 2: 3 calls of node 1 are in progress")
	cancel()
	for range 3 {
		wantKind(t, within(t, "end of a call", ended), errno.Unavailable, "cancelled")
	}
	eventually(t, "places given back", func() bool { return callsOn(two) == 0 })
	_, err = tn.nodes[1].call(t.Context(), 2, "x")
	must(t, err)
}

func TestHandlerPanics(t *testing.T) {
	tn := newNet(t, 1, 2)
	_, err := tn.nodes[1].callOn(t.Context(), 2, "test.Echo/Panic", "x")
	wantKind(t, err, errno.Other, "Panic: node 2: failed by a bug")
	if !tn.nodes[2].log.has("failed by a bug", "on purpose", "peer=1") {
		t.Fatalf("log: %s", tn.nodes[2].log)
	}
	_, err = tn.nodes[1].call(t.Context(), 2, "x")
	must(t, err)
}

func TestLongCalls(t *testing.T) {
	tn := newNet(t, 1, 2)
	long := string(make([]byte, MaxCall-64))
	got, err := tn.nodes[1].call(t.Context(), 2, long)
	must(t, err)
	if got != long {
		t.Fatalf("got %d bytes of %d", len(got), len(long))
	}
	_, err = tn.nodes[1].call(t.Context(), 2, long+long[:64])
	wantKind(t, err, errno.Full, "Unary: node 2", "at most")
	_, err = tn.nodes[1].call(t.Context(), 2, "x")
	must(t, err)
}
