package ics

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"

	"ssi/internal/errno"
)

// wires are the networks between two nodes with several interconnects: what is
// dialled there ends at the same listener, as long as the wire is whole.
type wires struct {
	mu    sync.Mutex
	to    string          // the listener
	cut   map[string]bool // silent: nothing is refused, nothing answers
	dials map[string]int
	open  map[string][]net.Conn

	strange string // who listens at strange:1
}

func (w *wires) dial(ctx context.Context, addr string) (net.Conn, error) {
	w.mu.Lock()
	cut, to := w.cut[addr], w.to
	if addr == "strange:1" {
		to = w.strange
	}
	w.dials[addr]++
	w.mu.Unlock()
	switch {
	case addr == "refuses:1":
		return nil, fmt.Errorf("dial %s: %w", addr, syscall.ECONNREFUSED)
	case cut:
		<-ctx.Done()
		return nil, fmt.Errorf("dial %s: %w", addr, ctx.Err())
	}
	c, err := dialTCP(ctx, to)
	if err == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.open[addr] = append(w.open[addr], c)
	}
	return c, err
}

// pull cuts a wire; what the kernel would find out after a while is found out
// at once.
func (w *wires) pull(addr string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[addr] = true
	for _, c := range w.open[addr] {
		_ = c.Close()
	}
}

func (w *wires) mend(addr string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[addr] = false
}

func (w *wires) count(addr string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dials[addr]
}

// twoWires is node 1, which reaches node 2 at the addresses given.
func twoWires(t *testing.T, addrs ...string) (*testNet, *wires) {
	t.Helper()
	tn := newNet(t, 2)
	w := &wires{to: tn.nodes[2].addr, cut: map[string]bool{}, dials: map[string]int{}, open: map[string][]net.Conn{}}
	tn.start(1, func(c *Config) { c.Dial = w.dial })
	peers := tn.peers()
	tn.nodes[2].SetView(2, peers)
	p := peers[2]
	p.Addr, p.Others = addrs[0], addrs[1:]
	peers[2] = p
	tn.nodes[1].SetView(2, peers)
	return tn, w
}

// The interconnect that is preferred is cut: calls, messages and streams go over
// the next one, and back when that is cut.
func TestNextInterconnect(t *testing.T) {
	tn, w := twoWires(t, "ic0:1", "ic1:1")
	one, two := tn.nodes[1], tn.nodes[2]
	talk := func(text string) {
		t.Helper()
		// A call under way ends with its connection; the next one finds the way.
		eventually(t, "a call", func() bool {
			got, err := one.call(t.Context(), 2, text)
			return err == nil && got == text
		})
		eventually(t, "a message", func() bool {
			one.Send(2, []byte(text))
			for {
				select {
				case m := <-two.echo.messages:
					if m.text == text {
						return true
					}
				default:
					return false
				}
			}
		})
	}
	talk("over the first")
	if n := w.count("ic1:1"); n != 0 {
		t.Errorf("the second was dialled %d times while the first works", n)
	}
	w.pull("ic0:1")
	talk("over the second")
	if w.count("ic0:1") == 0 || w.count("ic1:1") == 0 {
		t.Errorf("dialled: %v", w.dials)
	}
	// The one that answered is asked first from now on: no stream waits for the other.
	before := w.count("ic0:1")
	two.HandleBulk("hello", func(_ context.Context, _ Remote, _ []byte, s Stream) { _, _ = s.Write([]byte("hello")) })
	s, err := one.OpenBulk(t.Context(), 2, "hello", nil)
	must(t, err)
	b := make([]byte, 5)
	if _, err := s.Read(b); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	must(t, s.Close())
	if after := w.count("ic0:1"); after != before {
		t.Errorf("the first was dialled %d times more", after-before)
	}
	w.mend("ic0:1")
	w.pull("ic1:1")
	talk("over the first again")
}

// An address that refuses costs no time, and when none answers the error names
// all of them.
func TestNoInterconnect(t *testing.T) {
	tn, w := twoWires(t, "refuses:1", "ic1:1")
	if got, err := tn.nodes[1].call(t.Context(), 2, "x"); err != nil || got != "x" {
		t.Errorf("%q, %v", got, err)
	}
	w.pull("ic1:1")
	ctx, cancel := context.WithCancel(t.Context())
	peer := tn.nodes[1].peerOf(2)
	cancel()
	c, _, err := tn.nodes[1].connect(ctx, peer, peer.life.Load())
	if c != nil {
		t.Fatal("a connection over no interconnect")
	}
	wantKind(t, dialError(2, "refuses:1", err), errno.Unavailable, "refuses:1", "ic1:1")
}

// Somebody else has the preferred address: the next attempts go elsewhere.
func TestStrangeInterconnect(t *testing.T) {
	tn, w := twoWires(t, "strange:1", "ic1:1")
	tn.start(3, nil)
	w.mu.Lock()
	w.strange = tn.nodes[3].addr
	w.mu.Unlock()
	one, two := tn.nodes[1], tn.nodes[2]
	eventually(t, "a call", func() bool {
		got, err := one.call(t.Context(), 2, "x")
		return err == nil && got == "x"
	})
	eventually(t, "a message", func() bool {
		one.Send(2, []byte("y"))
		select {
		case m := <-two.echo.messages:
			return m.text == "y"
		default:
			return false
		}
	})
}

// The addresses of all interconnects of a node are those of a peer.
func TestPeerAddresses(t *testing.T) {
	tn, _ := twoWires(t, "192.0.2.1:1985", "192.0.2.2:1985", "[2001:db8::1]:1985")
	for addr, peer := range map[string]bool{"192.0.2.1": true, "192.0.2.2": true, "2001:db8::1": true, "192.0.2.3": false} {
		if got := tn.nodes[1].isPeerAddr(netip.MustParseAddr(addr)); got != peer {
			t.Errorf("%s is an address of a peer: %v", addr, got)
		}
	}
}
