package pki

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// book is an Authority in memory, with the rules the registry is to follow.
type book struct {
	mu     sync.Mutex
	tokens map[TokenHash]TokenRecord
	next   id.Node
	closed error // why nobody is admitted
	now    func() time.Time
}

func (b *book) Ready(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

func (b *book) Lookup(_ context.Context, hash TokenHash) (TokenRecord, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	rec, ok := b.tokens[hash]
	if !ok {
		return rec, errno.New(errno.NotFound, "token", 0, "no such token")
	}
	return rec, nil
}

func (b *book) Use(_ context.Context, hash TokenHash, req JoinRequest) (Grant, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	rec := b.tokens[hash]
	if err := rec.Usable(b.now(), req.PublicKey); err != nil {
		return Grant{}, err
	}
	if rec.UsedAt.IsZero() {
		rec.Given = max(rec.Node, req.Wanted)
		if rec.Given == 0 {
			b.next++
			rec.Given = b.next
		}
		rec.UsedAt, rec.UsedBy = b.now(), req.PublicKey
		b.tokens[hash] = rec
	}
	return Grant{Node: rec.Given, Role: rec.Role, ClusterName: "test", Members: []Member{{1, "10.0.0.1:1985"}}}, nil
}

// joinNet is a listening cluster node, without the transport.
type joinNet struct {
	t    testing.TB
	ca   *CAKey
	book *book
	addr string
	off  atomic.Int64 // of the server's clock, in ns
	cut  atomic.Bool  // break the connection before the reply

	logMu sync.Mutex
	logs  bytes.Buffer
}

func (j *joinNet) Write(p []byte) (int, error) {
	j.logMu.Lock()
	defer j.logMu.Unlock()
	return j.logs.Write(p)
}

func (j *joinNet) log() string {
	j.logMu.Lock()
	defer j.logMu.Unlock()
	return j.logs.String()
}

func newJoinNet(t testing.TB) *joinNet {
	j := &joinNet{t: t, ca: newCA(t), book: &book{tokens: map[TokenHash]TokenRecord{}, next: 1}}
	now := func() time.Time { return time.Now().Add(time.Duration(j.off.Load())) }
	j.book.now = now
	server := &JoinServer{Authority: j.book, Issuer: j.ca, Log: slog.New(slog.NewTextHandler(j, nil)), Now: now}
	m := issue(t, j.ca, 1, time.Now())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	j.addr = l.Addr().String()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			j.serve(server, m, c)
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return j
}

func (j *joinNet) serve(server *JoinServer, m Material, raw net.Conn) {
	defer raw.Close()
	var hash [32]byte
	conn := tls.Server(raw, &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{ALPN}, Certificates: []tls.Certificate{*m.TLS()}, ClientAuth: tls.RequireAnyClientCert,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, server.Ready(context.Background()) },
		VerifyConnection: func(cs tls.ConnectionState) (err error) {
			hash, err = server.VerifyToken(context.Background(), cs.PeerCertificates[0])
			if err != nil {
				server.Log.Warn("refused", "err", err)
			}
			return err
		},
	})
	_ = raw.SetDeadline(time.Now().Add(10 * time.Second))
	if conn.Handshake() == nil {
		one := *server
		one.Authority = cutter{j, raw}
		one.ServeJoin(context.Background(), conn, hash)
	}
}

// cutter is the book of a node that loses the connection at the worst moment.
type cutter struct {
	*joinNet
	raw net.Conn
}

func (c cutter) Ready(ctx context.Context) error { return c.book.Ready(ctx) }

func (c cutter) Lookup(ctx context.Context, h TokenHash) (TokenRecord, error) {
	return c.book.Lookup(ctx, h)
}

func (c cutter) Use(ctx context.Context, h TokenHash, req JoinRequest) (Grant, error) {
	g, err := c.book.Use(ctx, h, req)
	if c.cut.Load() {
		_ = c.raw.Close()
	}
	return g, err
}

func (j *joinNet) token(n id.Node, ttl time.Duration) Token {
	tok, err := NewToken(&j.ca.CA, n, RoleNode, time.Now().Add(ttl))
	must(j.t, err)
	j.book.mu.Lock()
	defer j.book.mu.Unlock()
	j.book.tokens[tok.Hash()] = tok.Record()
	return tok
}

func (j *joinNet) join(tok Token, key ed25519.PrivateKey) (*Joined, error) {
	ctx, cancel := context.WithTimeout(j.t.Context(), 10*time.Second)
	defer cancel()
	return (&Join{Token: tok, Key: key, Hostname: "new", Address: "10.0.0.2:1985"}).Do(ctx, j.addr)
}

func newKey(t testing.TB) ed25519.PrivateKey {
	key, err := NewKey()
	must(t, err)
	return key
}

func wantRefusal(t *testing.T, err error, kind errno.Kind, words string) {
	t.Helper()
	if !errno.Is(err, kind) || !strings.Contains(err.Error(), words) {
		t.Fatalf("got %v, want %q with %q", err, kind, words)
	}
}

func TestJoin(t *testing.T) {
	j := newJoinNet(t)
	tok := j.token(0, time.Hour)
	key := newKey(t)
	got, err := j.join(tok, key)
	must(t, err)
	if got.Who.Node != 2 || got.ClusterName != "test" || len(got.Members) != 1 || got.Material.CA.Cluster != j.ca.Cluster {
		t.Fatalf("got %+v", got)
	}
	must(t, got.Material.check())
	// The same key may repeat, another may not, nobody after the window.
	again, err := j.join(tok, key)
	must(t, err)
	if again.Who.Node != 2 {
		t.Fatalf("repeat gave node %d", again.Who.Node)
	}
	_, err = j.join(tok, newKey(t))
	wantRefusal(t, err, errno.Exists, "already used")
	j.off.Store(int64(RetryWindow + time.Second))
	_, err = j.join(tok, key)
	wantRefusal(t, err, errno.Permission, "used, expired or withdrawn")
	j.book.mu.Lock()
	j.book.closed = errno.New(errno.Unavailable, "join", 1, "the cluster is being founded")
	j.book.mu.Unlock()
	_, err = j.join(j.token(0, time.Hour), newKey(t))
	wantRefusal(t, err, errno.Unavailable, "being founded")
	if !strings.Contains(j.log(), "already used") {
		t.Fatalf("log: %s", j.log())
	}
	if strings.Contains(j.log(), tok.Secret()) {
		t.Fatal("the log shows the token")
	}
}

func TestJoinRefused(t *testing.T) {
	j, other := newJoinNet(t), newJoinNet(t)
	madeUp, err := NewToken(&j.ca.CA, 0, RoleNode, time.Now().Add(time.Hour))
	must(t, err)
	_, err = j.join(madeUp, newKey(t))
	wantRefusal(t, err, errno.Permission, "refused the token")
	if !strings.Contains(j.log(), "gave out no token") {
		t.Fatalf("log: %s", j.log())
	}
	_, err = j.join(j.token(0, -time.Minute), newKey(t))
	wantRefusal(t, err, errno.Permission, "it expired")
	if !strings.Contains(j.log(), "token expired") {
		t.Fatalf("log: %s", j.log())
	}
	_, err = j.join(j.token(0, -72*time.Hour), newKey(t))
	wantRefusal(t, err, errno.Timeout, "expired")
	_, err = j.join(other.token(0, time.Hour), newKey(t))
	wantRefusal(t, err, errno.Permission, "node 1 of cluster "+j.ca.Cluster)
	_, err = (&Join{Token: j.token(3, time.Hour), Key: newKey(t), Wanted: 4}).Do(t.Context(), j.addr)
	wantRefusal(t, err, errno.Invalid, "node number 3, not 4")
	_, err = (&Join{Token: j.token(0, time.Hour), Key: newKey(t), Hostname: "a b"}).Do(t.Context(), j.addr)
	wantRefusal(t, err, errno.Invalid, "bad host name")
	_, err = (&Join{Token: j.token(0, time.Hour), Key: newKey(t)}).Do(t.Context(), "127.0.0.1:1")
	wantRefusal(t, err, errno.Unavailable, "cannot reach 127.0.0.1:1")
}

// The connection breaks between the use of the token and the reply.
func TestJoinReplyLost(t *testing.T) {
	j := newJoinNet(t)
	tok, key := j.token(0, time.Hour), newKey(t)
	j.cut.Store(true)
	_, err := j.join(tok, key)
	wantRefusal(t, err, errno.Unavailable, "repeat within")
	j.cut.Store(false)
	got, err := j.join(tok, key) // the server takes one connection at a time: the first is over
	must(t, err)
	if got.Who.Node != 2 {
		t.Fatalf("got node %d", got.Who.Node)
	}
	if !strings.Contains(j.log(), "reply lost") {
		t.Fatalf("log: %s", j.log())
	}
}
