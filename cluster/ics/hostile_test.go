package ics

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ssi/cluster/pki"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// knock does a TLS handshake as a stranger and says what it got.
func knock(t *testing.T, addr string, cfg *tls.Config) (got []byte, err error) {
	t.Helper()
	raw, err := net.DialTimeout("tcp", addr, patience)
	must(t, err)
	defer raw.Close()
	must(t, raw.SetDeadline(time.Now().Add(patience)))
	cfg.InsecureSkipVerify = true
	conn := tls.Client(raw, cfg)
	if err := conn.Handshake(); err != nil {
		return nil, err
	}
	_, _ = conn.Write(hello{}.encode())
	got, err = io.ReadAll(conn)
	return got, err
}

func TestStrangers(t *testing.T) {
	tn := newNet(t)
	foreign, err := pki.NewCA("other", time.Now())
	must(t, err)
	own := material(t, tn.ca, 9)
	for name, c := range map[string]struct {
		cfg *tls.Config
		log string
	}{
		"no certificate":  {&tls.Config{NextProtos: []string{protoICS}}, "didn't provide a certificate"},
		"foreign cluster": {&tls.Config{NextProtos: []string{protoBulk}, Certificates: []tls.Certificate{*material(t, foreign, 9).TLS()}}, "belongs to another cluster " + foreign.Cluster},
		"revoked":         {&tls.Config{NextProtos: []string{protoRaft}, Certificates: []tls.Certificate{*own.TLS()}}, "revoked"},
		"no ALPN":         {&tls.Config{Certificates: []tls.Certificate{*own.TLS()}}, "offers no protocol"},
		"HTTP":            {&tls.Config{NextProtos: []string{"h2"}}, "offers no protocol"},
		"old TLS":         {&tls.Config{MaxVersion: tls.VersionTLS12, NextProtos: []string{protoICS}}, "unsupported versions"},
		"join, no tokens": {&tls.Config{NextProtos: []string{protoJoin}, Certificates: []tls.Certificate{*own.TLS()}}, "offers no protocol"},
		"own number":      {&tls.Config{NextProtos: []string{protoICS}, Certificates: []tls.Certificate{*material(t, tn.ca, 1).TLS()}}, "two machines share one number"},
	} {
		t.Run(name, func(t *testing.T) {
			node := tn.start(1, nil) // a new log: one line per address and minute
			defer node.Close()
			tn.revoke(9)
			got, err := knock(t, node.addr, c.cfg)
			if err == nil || len(got) > 0 {
				t.Fatalf("a stranger got %d bytes, err %v", len(got), err)
			}
			eventually(t, "reason in the log", func() bool { return node.log.has("connection refused", "127.0.0.1", c.log) })
		})
	}
}

func TestForeignServer(t *testing.T) {
	tn := newNet(t, 1)
	other := newNet(t, 2)
	tn.nodes[1].SetView(1, map[id.Node]Peer{2: {Addr: other.nodes[2].addr, Member: true}})
	_, err := tn.nodes[1].call(t.Context(), 2, "x")
	wantKind(t, err, errno.Unavailable, "belongs to another cluster "+other.ca.Cluster)
	// The right cluster, the wrong node.
	tn.start(3, nil)
	tn.nodes[1].SetView(2, map[id.Node]Peer{2: {Addr: tn.nodes[3].addr, Member: true}})
	_, err = tn.nodes[1].OpenBulk(t.Context(), 2, "x", nil)
	wantKind(t, err, errno.Unavailable, "node 3 answers there, not node 2")
}

// A revoked node loses what it has at once and gets nothing new, told why by
// its own error and in the others' log.
func TestRevoke(t *testing.T) {
	tn := newNet(t, 1, 2)
	failed := make(chan error, 1)
	go func() {
		_, err := tn.nodes[2].call(t.Context(), 1, "wait")
		failed <- err
	}()
	within(t, "start of the call", tn.nodes[1].echo.started)
	tn.revoke(2)
	tn.nodes[1].Recheck()
	wantKind(t, within(t, "end of the call", failed), errno.Unavailable)
	_, err := tn.nodes[2].call(t.Context(), 1, "x")
	wantKind(t, err, errno.Permission, "refuses this node's certificate")
	if !tn.nodes[1].log.has("recheck", "revoked") {
		t.Fatalf("log: %s", tn.nodes[1].log)
	}
}

func TestGarbage(t *testing.T) {
	tn := newNet(t, 1)
	for i, text := range []string{"GET / HTTP/1.1\r\n\r\n", "\x00\x00\x00\x00", strings.Repeat("x", 1<<16), ""} {
		raw, err := net.Dial("tcp", tn.nodes[1].addr)
		must(t, err)
		_, _ = io.WriteString(raw, text) // the node may hang up in the middle
		if text == "" {
			must(t, raw.Close())
			continue
		}
		_ = raw.(*net.TCPConn).CloseWrite() // likewise
		must(t, raw.SetDeadline(time.Now().Add(patience)))
		got, _ := io.ReadAll(raw) // ends by EOF or reset
		if len(got) > 7 {         // 7 bytes: a TLS alert record
			t.Errorf("garbage %d got %d bytes: %q", i, len(got), got)
		}
		must(t, raw.Close())
	}
	eventually(t, "all connections gone", func() bool { return len(tn.nodes[1].connsWhere(func(*conn) bool { return true })) == 0 })
	if n := strings.Count(tn.nodes[1].log.String(), "connection refused"); n != 1 {
		t.Errorf("%d lines in the log, want 1: %s", n, tn.nodes[1].log)
	}
}

// Connections that never finish their handshake are ended by the clock and
// bounded in number, and members get in all the while.
func TestSlowHandshakes(t *testing.T) {
	tn := newNet(t, 2)
	one := tn.start(1, func(c *Config) {
		c.Limits.StrangersPerAddr = 4
		c.Limits.Handshake = 300 * time.Millisecond
	})
	var idle []net.Conn
	for range 4 {
		raw, err := net.Dial("tcp", one.addr)
		must(t, err)
		defer raw.Close()
		idle = append(idle, raw)
	}
	held := func() int {
		one.gate.mu.Lock()
		defer one.gate.mu.Unlock()
		return one.gate.strangers
	}
	eventually(t, "four handshakes in progress", func() bool { return held() == 4 })
	raw, err := net.Dial("tcp", one.addr)
	must(t, err)
	must(t, raw.SetDeadline(time.Now().Add(patience)))
	if n, err := raw.Read(make([]byte, 1)); err == nil {
		t.Fatalf("the fifth got %d bytes", n)
	}
	must(t, raw.Close())
	tn.view(2) // now the address is a peer's and has places of its own
	_, err = tn.nodes[2].call(t.Context(), 1, "x")
	must(t, err)
	for _, c := range idle {
		must(t, c.SetDeadline(time.Now().Add(patience)))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("idle connection: %v", err)
		}
	}
	eventually(t, "places given back", func() bool { return held() == 0 })
}

func TestRefusalsAreBounded(t *testing.T) {
	var log logBuffer
	r := newRefusals(slog.New(slog.NewTextHandler(&log, nil)))
	now := time.Unix(1e9, 0)
	r.now = func() time.Time { return now }
	why := errors.New("scan")
	for i := range 3 * refusalTable {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		r.log(addr, why)
		r.log(addr, why)
	}
	if len(r.seen) != refusalTable || strings.Count(log.String(), "\n") != refusalTable {
		t.Fatalf("%d remembered, %d logged, want %d", len(r.seen), strings.Count(log.String(), "\n"), refusalTable)
	}
	now = now.Add(refusalPeriod)
	r.log(netip.AddrFrom4([4]byte{10, 0, 0, 1}), why)
	if !log.has("peer=10.0.0.1", "unlogged=1", fmt.Sprintf("unlogged_others=%d", 4*refusalTable)) {
		t.Fatal("what was not logged is not counted")
	}
	r.log(netip.AddrFrom4([4]byte{11, 0, 0, 1}), why)
	if !log.has("peer=11.0.0.1") {
		t.Fatal("an old table keeps new addresses out")
	}
}

// joinFake lets in the holders of any certificate whose name is "token".
type joinFake struct{ served chan [32]byte }

func (j joinFake) Ready(context.Context) error { return nil }

func (j joinFake) VerifyToken(_ context.Context, cert *x509.Certificate) ([32]byte, error) {
	if cert.Subject.CommonName != "node-77" {
		return [32]byte{}, errors.New("no such token")
	}
	return [32]byte{77}, nil
}

func (j joinFake) ServeJoin(_ context.Context, conn *tls.Conn, token [32]byte) {
	_, _ = io.WriteString(conn, "welcome")
	j.served <- token
}

func TestJoinConnection(t *testing.T) {
	ca, err := pki.NewCA("test", time.Now())
	must(t, err)
	fake := joinFake{make(chan [32]byte, 1)}
	var log logBuffer
	tr, err := New(Config{Self: 1, Credentials: pki.NewCredentials(material(t, ca, 1), nil), Log: slog.New(slog.NewTextHandler(&log, nil))})
	must(t, err)
	tr.HandleJoin(fake)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	served := make(chan error, 1)
	go func() { served <- tr.Serve(l) }()
	defer func() {
		must(t, tr.Close())
		must(t, within(t, "end of Serve", served))
	}()
	join := func(n id.Node) ([]byte, error) {
		return knock(t, l.Addr().String(), &tls.Config{NextProtos: []string{protoJoin}, Certificates: []tls.Certificate{*material(t, ca, n).TLS()}})
	}
	got, err := join(77)
	must(t, err)
	if string(got) != "welcome" || within(t, "join", fake.served) != [32]byte{77} {
		t.Fatalf("got %q", got)
	}
	if got, err := join(78); err == nil || len(got) > 0 {
		t.Fatalf("a bad token got %q, %v", got, err)
	}
	eventually(t, "reason in the log", func() bool { return log.has("no such token") })
}
