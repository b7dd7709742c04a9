package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"time"

	"ssi/cluster/pki"
	"ssi/cluster/registry"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// maxTries is how often a step is repeated that lost a race for a number: each
// time another machine got one.
const maxTries = int(id.MaxNode)

// number is what the registry keeps of a node number that was given out.
type number struct {
	Hostname string    `json:"hostname,omitempty"`
	Role     pki.Role  `json:"role"`
	Given    time.Time `json:"given"`
}

// joinService admits new nodes: it is pki.JoinServer over the registry. Any node
// of the cluster can do it.
type joinService struct{ c *Cluster }

// Ready is why nobody can be admitted now.
func (j *joinService) Ready(ctx context.Context) error {
	view, err := j.c.Registry().View(ctx)
	if err != nil {
		return err
	}
	if _, err := view.Get(keyCAKey); err != nil {
		return errno.New(errno.Unavailable, "join", j.c.self, "the cluster is being founded; try again")
	}
	return nil
}

// VerifyToken looks, during the handshake, whether a token is outstanding.
func (j *joinService) VerifyToken(ctx context.Context, cert *x509.Certificate) ([32]byte, error) {
	return j.server(nil).VerifyToken(ctx, cert)
}

// ServeJoin admits one machine.
func (j *joinService) ServeJoin(ctx context.Context, conn *tls.Conn, token [32]byte) {
	key, err := j.c.caKey(ctx)
	if err != nil {
		j.c.log.Warn("join refused", "peer", conn.RemoteAddr().String(), "err", err)
		return
	}
	j.server(issuer{key, j.c}).ServeJoin(ctx, conn, token)
}

func (j *joinService) server(issuer pki.Issuer) *pki.JoinServer {
	return &pki.JoinServer{Authority: j, Issuer: issuer, Log: j.c.log}
}

// caKey is the key of the cluster's CA.
func (c *Cluster) caKey(ctx context.Context) (*pki.CAKey, error) {
	view, err := c.Registry().View(ctx)
	if err != nil {
		return nil, err
	}
	e, err := view.Get(keyCAKey)
	if err != nil {
		return nil, fmt.Errorf("the key of the cluster's CA: %w", err)
	}
	return pki.NewCAKey(c.material.CA, e.Value)
}

// Lookup finds the record of a token.
func (j *joinService) Lookup(ctx context.Context, hash pki.TokenHash) (pki.TokenRecord, error) {
	_, rec, err := j.token(ctx, hash)
	return rec, err
}

func (j *joinService) token(ctx context.Context, hash pki.TokenHash) (mod uint64, rec pki.TokenRecord, err error) {
	view, err := j.c.Registry().View(ctx)
	if err != nil {
		return 0, rec, err
	}
	e, err := view.Get(keyToken(hash))
	if err != nil {
		return 0, rec, err
	}
	if err := json.Unmarshal(e.Value, &rec); err != nil {
		return 0, rec, fmt.Errorf("record of token %s: %w", hash.String()[:12], err)
	}
	return e.Mod, rec, nil
}

// Use consumes a token and gives out a number, in one transaction.
func (j *joinService) Use(ctx context.Context, hash pki.TokenHash, req pki.JoinRequest) (pki.Grant, error) {
	for range maxTries {
		mod, rec, err := j.token(ctx, hash)
		if err != nil {
			return pki.Grant{}, err
		}
		now := time.Now()
		if err := rec.Usable(now, req.PublicKey); err != nil {
			return pki.Grant{}, err
		}
		if !rec.UsedAt.IsZero() { // a repeat by the same joiner
			return j.grant(rec.Given, rec.Role), nil
		}
		n, numberMod, err := j.chooseNumber(ctx, rec, req.Wanted)
		if err != nil {
			return pki.Grant{}, err
		}
		rec.UsedAt, rec.UsedBy, rec.Given = now, req.PublicKey, n
		_, err = j.c.Registry().Txn(ctx, true,
			[]*registry.Compare{registry.Check(keyToken(hash), mod), registry.Check(keyNumber(n), numberMod)},
			registry.PutOp(keyToken(hash), mustJSON(rec), 0),
			registry.PutOp(keyNumber(n), mustJSON(number{Hostname: req.Hostname, Role: rec.Role, Given: now}), 0),
		)
		if errno.Is(err, errno.Exists) {
			continue // somebody else was quicker: look again
		}
		if err != nil {
			return pki.Grant{}, err
		}
		return j.grant(n, rec.Role), nil
	}
	return pki.Grant{}, errno.New(errno.Unavailable, "join", j.c.self, "too many machines join at once; try again")
}

// chooseNumber picks the number of a joiner and the revision its key has now.
func (j *joinService) chooseNumber(ctx context.Context, rec pki.TokenRecord, wanted id.Node) (id.Node, uint64, error) {
	view, err := j.c.Registry().View(ctx)
	if err != nil {
		return 0, 0, err
	}
	members := j.c.members.Load()
	revision := func(n id.Node) uint64 {
		if e, err := view.Get(keyNumber(n)); err == nil {
			return e.Mod
		}
		return 0
	}
	want := rec.Node
	if want == 0 {
		want = wanted
	}
	if want != 0 {
		if members.Get(want).State.Alive() {
			return 0, 0, errno.New(errno.Exists, "join", 0, "node number %d is taken by a node that is up", want)
		}
		// A number that was given out before is given again only by a token made
		// for it: that is the operator's word.
		if rec.Node == 0 && revision(want) != 0 {
			return 0, 0, errno.New(errno.Exists, "join", 0, "node number %d was given out before; for that machine to join again make a token for it: ssi cluster token --node %d", want, want)
		}
		return want, revision(want), nil
	}
	for n := id.Node(1); n <= id.MaxNode; n++ {
		if revision(n) == 0 && members.Get(n).Incarnation == 0 {
			return n, 0, nil
		}
	}
	return 0, 0, errno.New(errno.Full, "join", 0, "all %d node numbers are given out; make a token for one that is no longer used: ssi cluster token --node N", id.MaxNode)
}

func (j *joinService) grant(n id.Node, role pki.Role) pki.Grant {
	g := pki.Grant{Node: n, Role: role, ClusterName: j.c.ident.Name, Profile: j.c.ident.Profile}
	for _, m := range j.c.members.Load().Nodes {
		if m.State.Alive() {
			g.Members = append(g.Members, pki.Member{Node: m.Node, Address: m.Info.Addr})
		}
	}
	return g
}

// NewToken makes a one-time token and returns it with the addresses of nodes
// that take it.
func (c *Cluster) NewToken(ctx context.Context, n id.Node, role pki.Role, ttl time.Duration) (pki.Token, []string, error) {
	if n != 0 && c.members.Load().Get(n).State.Alive() {
		return pki.Token{}, nil, errno.New(errno.Exists, "token", 0, "node number %d is taken by a node that is up", n)
	}
	t, err := pki.NewToken(c.material.CA, n, role, time.Now().Add(ttl))
	if err != nil {
		return pki.Token{}, nil, err
	}
	if _, err := c.Registry().Put(ctx, true, keyToken(t.Hash()), mustJSON(t.Record()), 0); err != nil {
		return pki.Token{}, nil, err
	}
	var addrs []string
	for _, m := range c.members.Load().Nodes {
		if m.State.Alive() && !m.Info.Witness {
			addrs = append(addrs, m.Info.Addr)
		}
	}
	return t, addrs, nil
}

// forgetTokens removes the tokens that nobody can use any more.
func (c *Cluster) forgetTokens(ctx context.Context) error {
	entries, _, err := c.Registry().Stale().List(keyTokens, 0, "")
	if err != nil {
		return err
	}
	for _, e := range entries {
		var rec pki.TokenRecord
		if err := json.Unmarshal(e.Value, &rec); err == nil && time.Since(rec.Expiry) < tokenMemory {
			continue
		}
		check := []*registry.Compare{registry.Check(e.Key, e.Mod)}
		if _, err := c.Registry().Txn(ctx, true, check, registry.DeleteOp(e.Key)); err != nil && !errno.Is(err, errno.Exists) {
			return err
		}
	}
	return nil
}

// tokenMemory is how long an expired or used token is remembered, so that who
// tries it again is told the right reason.
const tokenMemory = 24 * time.Hour
