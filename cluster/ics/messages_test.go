package ics

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"ssi/internal/id"
)

func TestMessages(t *testing.T) {
	tn := newNet(t, 1, 2, 3, 4, 5)
	const each = 200
	for from := range tn.nodes {
		go func() {
			for i := range each {
				for to := range tn.nodes {
					tn.nodes[from].Send(to, []byte(strconv.Itoa(i)))
				}
			}
		}()
	}
	for n, node := range tn.nodes {
		next := map[id.Node]int{}
		for range 4 * each {
			m := within(t, fmt.Sprintf("message to node %d", n), node.echo.messages)
			if m.text != strconv.Itoa(next[m.from]) {
				t.Fatalf("node %d got %s from node %d, want %d", n, m.text, m.from, next[m.from])
			}
			next[m.from]++
		}
	}
}

// With a peer that cannot be reached the queue stays bounded, the oldest go,
// and the owner is told; when the peer comes, messages flow.
func TestMessagesUnreachable(t *testing.T) {
	tn := newNet(t)
	told := make(chan id.Node, 1)
	hold := make(chan struct{})
	one := tn.start(1, func(c *Config) {
		c.Limits.QueueMessages, c.Limits.QueueBytes = 10, 1000
		c.Unreachable = func(n id.Node) {
			select {
			case told <- n:
			default:
			}
			<-hold // keeps the sender from emptying its queue
		}
	})
	one.SetView(1, map[id.Node]Peer{2: {Addr: "127.0.0.1:1", Member: true}})
	one.Send(2, []byte("first"))
	if n := within(t, "unreachable", told); n != 2 {
		t.Fatalf("told of node %d", n)
	}
	for i := range 100 {
		one.Send(2, []byte(strconv.Itoa(i)))
	}
	o := one.peerOf(2).out
	o.mu.Lock()
	kept, oldest := len(o.queue), string(o.queue[0])
	o.mu.Unlock()
	if kept != 10 || oldest != "90" {
		t.Fatalf("%d messages kept, the oldest %s; want 10 and 90", kept, oldest)
	}
	one.Send(2, make([]byte, 990))
	o.mu.Lock()
	kept, bytes := len(o.queue), o.bytes
	o.mu.Unlock()
	if bytes > 1000 || kept > 10 {
		t.Fatalf("%d messages, %d bytes kept", kept, bytes)
	}
	one.Send(2, make([]byte, MaxMessage+1))
	if !one.log.has("too long") {
		t.Fatal("an oversized message is not in the log")
	}
	close(hold)
	two := tn.start(2, nil)
	tn.view(2)
	eventually(t, "messages to the peer that came", func() bool {
		one.Send(2, []byte("hello"))
		select {
		case m := <-two.echo.messages:
			return m.from == 1
		default:
			return false
		}
	})
}

func TestMessagesAfterRestart(t *testing.T) {
	tn := newNet(t, 1, 2)
	tn.nodes[1].Send(2, []byte("a"))
	within(t, "message", tn.nodes[2].echo.messages)
	must(t, tn.nodes[2].Close())
	two := tn.start(2, nil)
	tn.view(2)
	eventually(t, "message after the restart", func() bool {
		tn.nodes[1].Send(2, []byte("b"))
		select {
		case m := <-two.echo.messages:
			return m.text == "b"
		default:
			return false
		}
	})
}

func TestBigMessage(t *testing.T) {
	tn := newNet(t, 1, 2)
	tn.nodes[1].Send(2, make([]byte, MaxMessage))
	if m := within(t, "message", tn.nodes[2].echo.messages); len(m.text) != MaxMessage {
		t.Fatalf("%d bytes arrived", len(m.text))
	}
}

// flood fills the way between two nodes with bulk data in both directions
// until stop is called, which says how many bytes arrived.
func flood(t testing.TB, tn *testNet, streams int) (stop func() int64) {
	var arrived atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 4*streams)
	sink := func(_ context.Context, _ Remote, _ []byte, s Stream) {
		buf := make([]byte, 64<<10)
		for {
			n, err := s.Read(buf)
			arrived.Add(int64(n))
			if err != nil {
				return
			}
		}
	}
	for _, n := range tn.nodes {
		n.HandleBulk("sink", sink)
	}
	started := 0
	for from, to := range map[id.Node]id.Node{1: 2, 2: 1} {
		for range streams {
			s, err := tn.nodes[from].OpenBulk(ctx, to, "sink", nil)
			must(t, err)
			started++
			go func() {
				defer func() { done <- struct{}{} }()
				defer s.Close()
				buf := make([]byte, 256<<10)
				for ctx.Err() == nil {
					if _, err := s.Write(buf); err != nil {
						return
					}
				}
			}()
		}
	}
	return func() int64 {
		cancel()
		for range started {
			within(t, "end of the flood", done)
		}
		return arrived.Load()
	}
}

// Under a flood of bulk data messages go on, round after round. How fast is
// BenchmarkMessage's affair.
func TestMessagesUnderFlood(t *testing.T) {
	tn := newNet(t, 1, 2)
	stop := flood(t, tn, 8)
	defer func() {
		if n := stop(); n < 1<<20 {
			t.Errorf("the flood was %d bytes: the bulk data starved", n)
		}
	}()
	start := time.Now()
	for i := range 100 {
		tn.nodes[1].Send(2, []byte(strconv.Itoa(i)))
		if m := within(t, "message under flood", tn.nodes[2].echo.messages); m.text != strconv.Itoa(i) {
			t.Fatalf("got %q, want %d: messages were dropped", m.text, i)
		}
		tn.nodes[2].Send(1, []byte("back"))
		within(t, "answer under flood", tn.nodes[1].echo.messages)
	}
	t.Logf("100 round trips under flood in %v", time.Since(start))
}
