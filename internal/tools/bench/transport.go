package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"ssi/cluster/ics"
)

const (
	messageSize = 100 // bytes of a call and of its answer
	callBudget  = 60  // µs, median
	bulkBudget  = 500 // MB/s
	callFor     = 4 * time.Second
	bulkFor     = 6 * time.Second
)

// links is this side of every connection of the groups ics and bulk.
type links struct {
	t    *ics.Transport
	cert *tls.Certificate
	at   addresses
	end  func()
}

func openLinks(s *site) (*links, error) {
	at, end, err := otherSide(s)
	if err != nil {
		return nil, err
	}
	t, cert, err := transport(clientNode, serverNode, at.ICS)
	if err != nil {
		end()
		return nil, err
	}
	return &links{t: t, cert: cert, at: at, end: end}, nil
}

func (l *links) close() {
	_ = l.t.Close() // always nil
	l.end()
}

// dial opens a connection without ics.
func (l *links) dial(ctx context.Context, secure bool, mode byte) (net.Conn, error) {
	var d net.Dialer
	addr := l.at.TCP
	if secure {
		addr = l.at.TLS
	}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if secure {
		tc := tls.Client(c, plainTLS(l.cert))
		if err := tc.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c = tc
	}
	if _, err := c.Write([]byte{mode}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// measureCalls measures calls of 100 bytes, and what a stream costs to open.
func measureCalls(ctx context.Context, s *site) ([]Result, error) {
	l, err := openLinks(s)
	if err != nil {
		return nil, err
	}
	defer l.close()
	one := load{Parallel: 1, For: callFor}
	payload := bytes.Repeat([]byte{'x'}, messageSize)

	call := Result{Figure: "ICS call, 100 B", Unit: us, Budgets: []Budget{{Limit: callBudget}}}
	invoke := func(ctx context.Context, _ int) error {
		var out wrapperspb.BytesValue
		if err := l.t.Call(ctx, serverNode, echoMethod, &wrapperspb.BytesValue{Value: payload}, &out); err != nil {
			return err
		}
		if len(out.GetValue()) != messageSize {
			return errors.New("another answer than the question")
		}
		return nil
	}
	if err := invoke(ctx, 0); err != nil { // connects
		return nil, err
	}
	got, err := hammer(ctx, one, invoke)
	if err != nil {
		return nil, err
	}
	call.Stats = statsOf(us, durations(us, got.Durations))
	for _, secure := range []bool{true, false} {
		p := Peer{Name: "TCP ping-pong"}
		if secure {
			p.Name = "TLS 1.3 ping-pong"
		}
		if got, err := l.pingPong(ctx, secure, one); err == nil {
			p.Stats = statsOf(us, durations(us, got.Durations))
		} else {
			p.Error = err.Error()
		}
		call.Peers = append(call.Peers, p)
	}

	many := Result{Figure: "ICS calls, 100 B, 16 at a time", Unit: perSec}
	got, err = hammer(ctx, load{Parallel: 16, For: callFor}, invoke)
	if err != nil {
		return nil, err
	}
	many.Stats = statsOf(perSec, got.Rates)

	open := Result{Figure: "ICS bulk stream, open and close", Unit: us}
	got, err = hammer(ctx, load{Parallel: 1, For: callFor, Max: 1000}, func(ctx context.Context, _ int) error {
		st, err := l.t.OpenBulk(ctx, serverNode, sinkStream, nil)
		if err != nil {
			return err
		}
		return st.Close()
	})
	if err != nil {
		return nil, err
	}
	open.Stats = statsOf(us, durations(us, got.Durations))
	shake := Peer{Name: "TLS 1.3 handshake, mutual"}
	got, err = hammer(ctx, load{Parallel: 1, For: callFor, Max: 1000}, func(ctx context.Context, _ int) error {
		c, err := l.dial(ctx, true, modeEcho)
		if err != nil {
			return err
		}
		defer c.Close()
		return echo(c, payload, make([]byte, messageSize))
	})
	if err == nil {
		shake.Stats = statsOf(us, durations(us, got.Durations))
	} else {
		shake.Error = err.Error()
	}
	open.Peers = []Peer{shake}
	return []Result{call, many, open}, nil
}

func (l *links) pingPong(ctx context.Context, secure bool, one load) (samples, error) {
	c, err := l.dial(ctx, secure, modeEcho)
	if err != nil {
		return samples{}, err
	}
	defer c.Close()
	out, in := bytes.Repeat([]byte{'x'}, messageSize), make([]byte, messageSize)
	return hammer(ctx, one, func(context.Context, int) error { return echo(c, out, in) })
}

func echo(c net.Conn, out, in []byte) error {
	if _, err := c.Write(out); err != nil {
		return err
	}
	_, err := io.ReadFull(c, in)
	return err
}

// measureBulk measures one stream, from the write to the read of the other
// process.
func measureBulk(ctx context.Context, s *site) ([]Result, error) {
	l, err := openLinks(s)
	if err != nil {
		return nil, err
	}
	defer l.close()
	r := Result{Figure: "ICS bulk stream, loopback", Unit: mbPerSec, Budgets: []Budget{{Limit: bulkBudget}}}
	st, err := l.t.OpenBulk(ctx, serverNode, sinkStream, nil)
	if err != nil {
		return nil, err
	}
	rates, err := fill(ctx, st)
	if err != nil {
		return nil, err
	}
	r.Stats = statsOf(mbPerSec, rates)
	for _, secure := range []bool{true, false} {
		p := Peer{Name: "TCP stream"}
		if secure {
			p.Name = "TLS 1.3 stream"
		}
		c, err := l.dial(ctx, secure, modeSink)
		if err == nil {
			rates, err = fill(ctx, c)
		}
		if err == nil {
			p.Stats = statsOf(mbPerSec, rates)
		} else {
			p.Error = err.Error()
		}
		r.Peers = append(r.Peers, p)
	}
	return []Result{r}, nil
}

// fill writes to c for a while and closes it.
func fill(ctx context.Context, c net.Conn) ([]float64, error) {
	defer c.Close()
	buf := make([]byte, chunk)
	if err := c.SetWriteDeadline(time.Now().Add(2 * bulkFor)); err != nil {
		return nil, err
	}
	s := newStream()
	for s.elapsed() < bulkFor && ctx.Err() == nil {
		n, err := c.Write(buf)
		if err != nil {
			return nil, err
		}
		s.add(n)
	}
	return s.rates(), context.Cause(ctx)
}
