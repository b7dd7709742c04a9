package ics

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"sync/atomic"
	"testing"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// echoBulk sends back what comes and half-closes at its end.
func echoBulk(_ context.Context, _ Remote, header []byte, s Stream) {
	if _, err := s.Write(header); err != nil {
		return
	}
	if _, err := io.Copy(s, s); err != nil {
		return
	}
	_ = s.CloseWrite()
}

func TestBulk(t *testing.T) {
	tn := newNet(t, 1, 2)
	for _, n := range tn.nodes {
		n.HandleBulk("echo", echoBulk)
	}
	for _, to := range []id.Node{1, 2} {
		s, err := tn.nodes[1].OpenBulk(t.Context(), to, "echo", []byte("head:"))
		must(t, err)
		data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		go func() {
			if _, err := s.Write(data); err == nil {
				_ = s.CloseWrite()
			}
		}()
		got, err := io.ReadAll(s)
		must(t, err)
		if want := append([]byte("head:"), data...); sha256.Sum256(got) != sha256.Sum256(want) {
			t.Fatalf("node %d: got %d bytes, want %d", to, len(got), len(want))
		}
		must(t, s.Close())
	}
	_, err := tn.nodes[1].OpenBulk(t.Context(), 2, "nothing", nil)
	wantKind(t, err, errno.NotFound, "open nothing: node 2", `knows no stream "nothing"`)
	_, err = tn.nodes[1].OpenBulk(t.Context(), 3, "echo", nil)
	wantKind(t, err, errno.Unavailable, "node 3")
	_, err = tn.nodes[1].OpenBulk(t.Context(), 2, "echo", make([]byte, MaxBulkHeader+1))
	wantKind(t, err, errno.Invalid)
}

func TestBulkLimit(t *testing.T) {
	tn := newNet(t, 1)
	two := tn.start(2, func(c *Config) { c.Limits.StreamsPerPeer = 3 })
	two.HandleBulk("echo", echoBulk)
	tn.view(2)
	var open []Stream
	for range 3 {
		s, err := tn.nodes[1].OpenBulk(t.Context(), 2, "echo", nil)
		must(t, err)
		open = append(open, s)
	}
	_, err := tn.nodes[1].OpenBulk(t.Context(), 2, "echo", nil)
	wantKind(t, err, errno.Full, "node 2: 3 streams of node 1 are open")
	must(t, open[0].Close())
	eventually(t, "place of a closed stream", func() bool {
		s, err := tn.nodes[1].OpenBulk(t.Context(), 2, "echo", nil)
		if err == nil {
			must(t, s.Close())
		}
		return err == nil
	})
	for _, s := range open[1:] {
		must(t, s.Close())
	}
	// The limit of the opening side.
	tn.nodes[1].HandleBulk("echo", echoBulk)
	for range 3 {
		s, err := two.OpenBulk(t.Context(), 1, "echo", nil)
		must(t, err)
		defer s.Close()
	}
	_, err = two.OpenBulk(t.Context(), 1, "echo", nil)
	wantKind(t, err, errno.Full, "3 streams are open to it")
}

// Both ends of a stream, reading and writing, end with the membership.
func TestBulkEndsWithPeer(t *testing.T) {
	for _, side := range []id.Node{1, 2} { // who hears of the death
		tn := newNet(t, 1, 2)
		served := make(chan error, 1)
		tn.nodes[2].HandleBulk("read", func(ctx context.Context, _ Remote, _ []byte, s Stream) {
			_, err := s.Read(make([]byte, 1))
			served <- errors.Join(err, context.Cause(ctx))
		})
		s, err := tn.nodes[1].OpenBulk(t.Context(), 2, "read", nil)
		must(t, err)
		opened := make(chan error, 1)
		go func() {
			_, err := s.Read(make([]byte, 1))
			opened <- err
		}()
		peers := tn.peers()
		peers[3-side] = Peer{Cause: "power cut"}
		tn.nodes[side].SetView(2, peers)
		here, there := opened, served
		if side == 2 {
			here, there = served, opened
		}
		wantKind(t, within(t, "end of the near side", here), errno.Unavailable, "left the cluster: power cut")
		wantKind(t, within(t, "end of the far side", there), errno.Unavailable)
		_ = s.Close() // broken already
		_, err = tn.nodes[side].OpenBulk(t.Context(), 3-side, "read", nil)
		wantKind(t, err, errno.Unavailable, "is not a member of the cluster: power cut")
	}
}

func TestBulkFence(t *testing.T) {
	tn := newNet(t, 1, 2)
	two := tn.nodes[2]
	ended := make(chan error, 2)
	wait := func(ctx context.Context, _ Remote, _ []byte, s Stream) {
		<-ctx.Done()
		ended <- context.Cause(ctx)
	}
	two.HandleBulk("work", wait)
	two.HandleBulk("control", wait)
	work, err := tn.nodes[1].OpenBulk(t.Context(), 2, "work", nil)
	must(t, err)
	control, err := tn.nodes[1].OpenBulk(t.Context(), 2, "control", nil)
	must(t, err)
	two.SetServing(false, "lease lost")
	wantKind(t, within(t, "end of the handler", ended), errno.Fenced, "lease lost")
	_, err = work.Read(make([]byte, 1))
	wantKind(t, err, errno.Unavailable, "connection lost")
	_, err = tn.nodes[1].OpenBulk(t.Context(), 2, "work", nil)
	wantKind(t, err, errno.Fenced, "node 2: fenced: lease lost")
	if _, err = control.Write([]byte("still here")); err != nil {
		t.Fatalf("control stream: %v", err)
	}
	_ = work.Close() // broken already
	must(t, control.Close())

	// A node's stream with itself ends with the reason too, not as if complete.
	two.SetServing(true, "")
	self, err := two.OpenBulk(t.Context(), 2, "work", nil)
	must(t, err)
	two.SetServing(false, "lease lost again")
	_, err = self.Read(make([]byte, 1))
	wantKind(t, err, errno.Fenced, "lease lost again")
	_ = self.Close() // broken already
}

// A reader that rests holds the writer up; nothing is lost or piled up.
func TestBulkBackPressure(t *testing.T) {
	tn := newNet(t, 1, 2)
	goOn := make(chan struct{})
	total := make(chan int64, 1)
	tn.nodes[2].HandleBulk("slow", func(_ context.Context, _ Remote, _ []byte, s Stream) {
		<-goOn
		n, _ := io.Copy(io.Discard, s)
		total <- n
	})
	s, err := tn.nodes[1].OpenBulk(t.Context(), 2, "slow", nil)
	must(t, err)
	var sent atomic.Int64
	const all = 64 << 20 // many times what the kernels keep
	done := make(chan error, 1)
	go func() {
		buf := make([]byte, 256<<10)
		for sent.Load() < all {
			n, err := s.Write(buf)
			sent.Add(int64(n))
			if err != nil {
				done <- err
				return
			}
		}
		done <- s.CloseWrite()
	}()
	// The writer stands when two looks some time apart see the same count.
	last := int64(-1)
	stood := 0
	eventually(t, "writer stands", func() bool {
		now := sent.Load()
		if now == last && now > 0 {
			stood++
		} else {
			stood = 0
		}
		last = now
		return stood > 50
	})
	if last >= all/2 {
		t.Fatalf("writer went on to %d bytes while the reader rested", last)
	}
	close(goOn)
	must(t, within(t, "end of the writer", done))
	if n := within(t, "end of the reader", total); n != sent.Load() {
		t.Fatalf("%d bytes arrived of %d", n, sent.Load())
	}
	must(t, s.Close())
}
