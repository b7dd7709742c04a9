package ics

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"ssi/internal/errno"
)

// Writes to a peer that does not read return at once, in order, and whoever
// asks is told that there is no room; when it reads, there is.
func TestEager(t *testing.T) {
	a, b, err := socketPair()
	must(t, err)
	var wg sync.WaitGroup
	e := newEager(a, func(f func()) bool { wg.Go(f); return true }, func(error) {})
	const times, size = 64, 64 << 10
	number := func(i int) []byte {
		return binary.BigEndian.AppendUint64(make([]byte, 0, size), uint64(i))[:size]
	}
	for i := range times {
		_, err := e.Write(number(i))
		must(t, err)
	}
	room := e.full()
	if room == nil {
		t.Fatalf("there is room after %d bytes", times*size)
	}
	got := make([]byte, size)
	for i := range times {
		_, err := io.ReadFull(b, got)
		must(t, err)
		if n := binary.BigEndian.Uint64(got); n != uint64(i) {
			t.Fatalf("%d came when %d was due", n, i)
		}
	}
	within(t, "room", room)
	wg.Wait()
	_, err = e.Write([]byte("x")) // by the caller again
	must(t, err)
	if _, err := b.Read(got); err != nil || got[0] != 'x' {
		t.Fatalf("got %q, %v", got[0], err)
	}
	must(t, b.Close())
	if _, err := e.Write([]byte("x")); err == nil {
		t.Fatal("a write to nobody works")
	}
	must(t, a.Close())
}

// A connection that ends wakes those that wait for room in it.
func TestEagerEnds(t *testing.T) {
	a, b, err := socketPair()
	must(t, err)
	defer b.Close()
	var wg sync.WaitGroup
	e := newEager(a, func(f func()) bool { wg.Go(f); return true }, func(error) {})
	_, err = e.Write(make([]byte, 4*eagerRest))
	must(t, err)
	room := e.full()
	broken := errors.New("broken")
	e.stop(broken)
	within(t, "end of the wait", room)
	if e.full() != nil {
		t.Fatal("who writes into a broken connection waits")
	}
	if _, err := e.Write([]byte("x")); err != broken {
		t.Fatalf("write: %v", err)
	}
	must(t, a.Close())
	wg.Wait()
}

// Calls keep their deadlines when the peer takes no bytes any more.
func TestStuckPeer(t *testing.T) {
	tn := newNet(t, 2)
	var held *holdable
	tn.start(1, func(c *Config) {
		c.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			raw, err := dialTCP(ctx, addr)
			held = &holdable{Conn: raw}
			return held, err
		}
	})
	tn.view(2)
	_, err := tn.nodes[1].call(t.Context(), 2, "x")
	must(t, err)
	held.mu.Lock() // no write ends
	for range 8 {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		_, err := tn.nodes[1].call(ctx, 2, string(make([]byte, 1<<20)))
		cancel()
		wantKind(t, err, errno.Timeout, "no answer in time")
	}
	held.mu.Unlock()
	_, err = tn.nodes[1].call(t.Context(), 2, "x")
	must(t, err)
}

// holdable is a connection whose writes wait for mu.
type holdable struct {
	net.Conn
	mu sync.Mutex
}

func (h *holdable) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.Conn.Write(b)
}
