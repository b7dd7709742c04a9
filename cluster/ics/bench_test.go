package ics

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"ssi/internal/id"
)

// percentiles reports the distribution of what a benchmark measured one by one.
func percentiles(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	at := func(p float64) float64 { return float64(took[int(p*float64(len(took)-1))].Nanoseconds()) / 1e3 }
	b.ReportMetric(at(0.5), "p50-µs")
	b.ReportMetric(at(0.99), "p99-µs")
	b.ReportMetric(at(1), "max-µs")
}

func BenchmarkCall(b *testing.B) {
	for _, size := range []int{100, 4096, 65536} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			tn := newNet(b, 1, 2)
			in, out := &wrapperspb.BytesValue{Value: []byte(strings.Repeat("x", size))}, new(wrapperspb.BytesValue)
			var took []time.Duration
			b.ReportAllocs()
			for b.Loop() {
				start := time.Now()
				must(b, tn.nodes[1].Call(b.Context(), 2, "test.Echo/Unary", in, out))
				took = append(took, time.Since(start))
			}
			percentiles(b, took)
		})
	}
}

func BenchmarkBulk(b *testing.B) {
	const chunk = 256 << 10
	tn := newNet(b, 1, 2)
	got := make(chan int64, 1)
	tn.nodes[2].HandleBulk("sink", func(_ context.Context, _ Remote, _ []byte, s Stream) {
		buf := make([]byte, chunk)
		n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{s}, buf)
		got <- n
	})
	s, err := tn.nodes[1].OpenBulk(b.Context(), 2, "sink", nil)
	must(b, err)
	buf := make([]byte, chunk)
	b.SetBytes(chunk)
	for b.Loop() {
		_, err := s.Write(buf)
		must(b, err)
	}
	must(b, s.(*conn).CloseWrite())
	within(b, "arrival", got)
	must(b, s.Close())
}

func BenchmarkOpenBulk(b *testing.B) {
	tn := newNet(b, 1, 2)
	tn.nodes[2].HandleBulk("echo", echoBulk)
	var took []time.Duration
	one := make([]byte, 1)
	for b.Loop() {
		start := time.Now()
		s, err := tn.nodes[1].OpenBulk(b.Context(), 2, "echo", []byte("x"))
		must(b, err)
		_, err = s.Read(one)
		must(b, err)
		took = append(took, time.Since(start))
		must(b, s.Close())
	}
	percentiles(b, took)
}

// BenchmarkMessage is half a round trip of ssi-raft, idle and under a flood of
// bulk streams both ways.
func BenchmarkMessage(b *testing.B) {
	for _, streams := range []int{0, 2, 8} {
		b.Run(fmt.Sprintf("flood%d", streams), func(b *testing.B) {
			// Two nodes share this process: a processor of Go's for the bulk
			// data of each and one for the rest, as each has in its own.
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
			tn := newNet(b)
			for n := range id.Node(2) {
				tn.start(n+1, func(c *Config) { c.Limits.BulkProcs = 1 })
			}
			tn.view(1)
			tn.nodes[1].Send(2, nil)
			tn.nodes[2].Send(1, nil)
			within(b, "message", tn.nodes[2].echo.messages)
			within(b, "message", tn.nodes[1].echo.messages)
			stop := flood(b, tn, streams)
			var took []time.Duration
			begin := time.Now()
			for b.Loop() {
				start := time.Now()
				tn.nodes[1].Send(2, []byte("ping"))
				<-tn.nodes[2].echo.messages
				tn.nodes[2].Send(1, []byte("pong"))
				<-tn.nodes[1].echo.messages
				took = append(took, time.Since(start)/2)
			}
			percentiles(b, took)
			b.ReportMetric(float64(stop())/1e6/time.Since(begin).Seconds(), "flood-MB/s")
		})
	}
}

// BenchmarkCalls16 is sixteen callers at once on one connection.
func BenchmarkCalls16(b *testing.B) {
	tn := newNet(b, 1, 2)
	in := &wrapperspb.BytesValue{Value: []byte(strings.Repeat("x", 100))}
	b.ReportAllocs()
	b.SetParallelism(16 / runtime.GOMAXPROCS(0))
	b.RunParallel(func(pb *testing.PB) {
		out := new(wrapperspb.BytesValue)
		for pb.Next() {
			if err := tn.nodes[1].Call(b.Context(), 2, "test.Echo/Unary", in, out); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkStream is the items of one stream.
func BenchmarkStream(b *testing.B) {
	for _, size := range []int{100, 65536} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			tn := newNet(b, 1, 2)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			must(b, tn.nodes[1].stream(b.Context(), b.N, size, false, func([]byte) error { return nil }))
		})
	}
}
