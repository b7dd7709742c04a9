package ics

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"ssi/cluster/pki"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// oneToken is a cluster's book with a single token in it.
type oneToken struct {
	mu   sync.Mutex
	hash pki.TokenHash
	rec  pki.TokenRecord
}

func (o *oneToken) Ready(context.Context) error { return nil }

func (o *oneToken) Lookup(_ context.Context, hash pki.TokenHash) (pki.TokenRecord, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if hash != o.hash {
		return pki.TokenRecord{}, errno.New(errno.NotFound, "token", 0, "no such token")
	}
	return o.rec, nil
}

func (o *oneToken) Use(_ context.Context, _ pki.TokenHash, req pki.JoinRequest) (pki.Grant, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.rec.Usable(time.Now(), req.PublicKey); err != nil {
		return pki.Grant{}, err
	}
	o.rec.UsedAt, o.rec.UsedBy, o.rec.Given = time.Now(), req.PublicKey, 2
	return pki.Grant{Node: 2, Role: pki.RoleNode, ClusterName: "test"}, nil
}

// A machine with nothing but a token and an address becomes a node that calls
// and is called; a second machine with the same token does not.
func TestJoinThroughTransport(t *testing.T) {
	tn := newNet(t)
	tok, err := pki.NewToken(&tn.ca.CA, 0, pki.RoleNode, time.Now().Add(time.Hour))
	must(t, err)
	book := &oneToken{hash: tok.Hash(), rec: tok.Record()}
	one := tn.startJoin(1, func(log *slog.Logger) JoinHandler {
		return &pki.JoinServer{Authority: book, Issuer: tn.ca, Log: log}
	})
	key, err := pki.NewKey()
	must(t, err)
	joined, err := (&pki.Join{Token: tok, Key: key, Hostname: "two"}).Do(t.Context(), one.addr)
	must(t, err)

	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	two, err := New(Config{Self: joined.Who.Node, Incarnation: 5, Credentials: pki.NewCredentials(joined.Material, nil), Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	served := make(chan error, 1)
	go func() { served <- two.Serve(l) }()
	defer func() {
		must(t, two.Close())
		must(t, within(t, "end of Serve", served))
	}()
	peers := map[id.Node]Peer{1: {Addr: one.addr, Member: true}, 2: {Addr: l.Addr().String(), Member: true, Incarnation: 5}}
	one.SetView(1, peers)
	two.SetView(1, peers)
	_, err = (&testNode{Transport: two}).call(t.Context(), 1, "hello")
	must(t, err)

	other, err := pki.NewKey()
	must(t, err)
	_, err = (&pki.Join{Token: tok, Key: other, Hostname: "three"}).Do(t.Context(), one.addr)
	wantKind(t, err, errno.Exists, "already used")
	if !one.log.has("join refused", "three", "already used") {
		t.Fatalf("log: %s", one.log)
	}
	one.Recheck() // leaves conversations of joiners alone
}
