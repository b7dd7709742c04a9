package cluster

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ssi/cluster/core"
	"ssi/cluster/member"
	"ssi/cluster/pki"
	"ssi/cluster/registry"
	"ssi/internal/errno"
	"ssi/internal/id"
)

func TestFound(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ssi")
	good := NewCluster{Dir: dir, Name: "c", Node: 3, Profile: "lan", Addr: "192.0.2.1:1985", Tokens: 4}
	for what, change := range map[string]func(*NewCluster){
		"profile": func(n *NewCluster) { n.Profile = "slow" },
		"no node": func(n *NewCluster) { n.Node = 0 },
		"node":    func(n *NewCluster) { n.Node = 128 },
		"no name": func(n *NewCluster) { n.Name = "" },
		"name":    func(n *NewCluster) { n.Name = "a b" },
	} {
		bad := good
		change(&bad)
		if _, _, err := Found(bad); err == nil || exists(filepath.Join(dir, fileCluster)) {
			t.Errorf("bad %s: %v", what, err)
		}
	}
	ident, tokens, err := Found(good)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ReadIdentity(dir); err != nil || got != ident || got.Node != 3 || got.Name != "c" {
		t.Errorf("the identity is %+v, %v", got, err)
	}
	var numbers []id.Node
	for _, secret := range tokens {
		tok, err := pki.ParseToken(secret)
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, tok.Node)
	}
	if len(numbers) != 4 || numbers[0] != 1 || numbers[1] != 2 || numbers[2] != 4 || numbers[3] != 5 {
		t.Errorf("the tokens are for %v", numbers)
	}
	if info, err := os.Stat(filepath.Join(dir, fileFounding)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the secrets have mode %v, %v", info.Mode(), err)
	}

	if _, _, err := Found(good); !errno.Is(err, errno.Exists) || !strings.Contains(err.Error(), "--force") {
		t.Errorf("founded twice: %v", err)
	}
	if _, err := JoinAs(t.Context(), JoinRequest{Dir: dir, Token: tokens[0], Addrs: []string{"192.0.2.1:1"}}); !errno.Is(err, errno.Exists) {
		t.Errorf("a node joins: %v", err)
	}
	good.Force = true
	again, _, err := Found(good)
	if err != nil || again.ID == ident.ID {
		t.Errorf("forced: %+v, %v", again, err)
	}
	old, err := filepath.Glob(filepath.Join(dir, dirAside+".*"))
	if err != nil || len(old) != 1 {
		t.Fatalf("put aside: %v, %v", old, err)
	}
	if got, err := ReadIdentity(old[0]); err != nil || got.ID != ident.ID {
		t.Errorf("put aside: %+v, %v", got, err)
	}
	// What a first try left half done is no obstacle, and what was put aside stays.
	if err := os.Rename(filepath.Join(dir, fileFounding), filepath.Join(old[0], "moved-before")); err != nil {
		t.Fatal(err)
	}
	third, _, err := Found(good)
	if err != nil || third.ID == again.ID {
		t.Errorf("forced again: %+v, %v", third, err)
	}
	if got, err := ReadIdentity(old[0]); err != nil || got.ID != ident.ID {
		t.Errorf("put aside first: %+v, %v", got, err)
	}
	if all, err := filepath.Glob(filepath.Join(dir, dirAside+".*")); err != nil || len(all) != 2 {
		t.Errorf("put aside: %v, %v", all, err)
	}
}

func TestJoinRequests(t *testing.T) {
	ca, err := pki.NewCA("c", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	token := func(role pki.Role) string {
		tok, err := pki.NewToken(&ca.CA, 0, role, time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		return tok.Secret()
	}
	for _, test := range []struct {
		want string
		r    JoinRequest
	}{
		{"token", JoinRequest{Token: "x", Addrs: []string{"a:1"}}},
		{"--witness", JoinRequest{Token: token(pki.RoleNode), Addrs: []string{"a:1"}, Witness: true}},
		{"ssi cluster witness", JoinRequest{Token: token(pki.RoleWitness), Addrs: []string{"a:1"}}},
		{"no address", JoinRequest{Token: token(pki.RoleNode)}},
		{"127.0.0.1:2", JoinRequest{Token: token(pki.RoleNode), Addrs: []string{"127.0.0.1:1", "127.0.0.1:2"}}},
		{"cannot reach", JoinRequest{Token: token(pki.RoleNode), Addrs: []string{"127.0.0.1:1"}}},
	} {
		test.r.Dir = filepath.Join(t.TempDir(), "ssi")
		_, err := JoinAs(t.Context(), test.r)
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") || len(test.r.Token) > 9 && strings.Contains(err.Error(), test.r.Token) {
			t.Errorf("want %q: %v", test.want, err)
		}
		if exists(filepath.Join(test.r.Dir, fileCluster)) {
			t.Errorf("%s: it is a node now", test.want)
		}
	}
}

// TestJoinWhileFounding: the token of who comes before the new cluster has its
// secrets is not blamed, and is good afterwards.
func TestJoinWhileFounding(t *testing.T) {
	t.Parallel()
	m, tokens := found(t, "fast", 1)
	m.founded()
	reg := m.c.Registry()
	view, err := reg.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	key, err := view.Get(keyCAKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reg.Txn(t.Context(), true, nil, registry.DeleteOp(keyCAKey)); err != nil {
		t.Fatal(err)
	}
	if _, err := admit(t, tokens[0], m.addr); !errno.Is(err, errno.Unavailable) || !strings.Contains(err.Error(), "is being founded") || !strings.Contains(err.Error(), "still good, try again") {
		t.Errorf("while the cluster is founded: %v", err)
	}
	if _, err := reg.Put(t.Context(), true, keyCAKey, key.Value, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := admit(t, tokens[0], m.addr); err != nil {
		t.Errorf("after that: %v", err)
	}
}

// TestTokens tries every way in which a token may be bad, and that good ones give
// each machine a number of its own.
func TestTokens(t *testing.T) {
	t.Parallel()
	m, _ := found(t, "fast", 0)
	m.founded()
	j := &joinService{m.c}

	refused := func(what, want, token string) {
		t.Helper()
		joiner, err := admit(t, token, m.addr)
		if err == nil || exists(filepath.Join(joiner.dir, fileCluster)) {
			t.Errorf("%s: %v", what, err)
		}
		if err != nil && strings.Contains(err.Error(), token) {
			t.Errorf("%s: the token is in the message", what)
		}
		until(t, "the reason in the log of "+what, func() bool { return strings.Contains(m.log.String(), want) })
	}
	own, err := pki.NewToken(m.c.material.CA, 0, pki.RoleNode, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	refused("a token that was made up", "gave out no token", own.Secret())
	refused("an expired token", "token expired", m.token(0, -time.Minute))
	token := m.token(0, time.Hour)
	if joiner, err := admit(t, token, m.addr); err != nil {
		t.Fatal(err)
	} else if ident, err := ReadIdentity(joiner.dir); err != nil || ident.Node != 2 {
		t.Errorf("the first joiner is %+v, %v", ident, err)
	}
	refused("a used token", "already used", token)
	if _, _, err := m.c.NewToken(m.ctx(), 1, pki.RoleNode, time.Hour); !errno.Is(err, errno.Exists) {
		t.Errorf("a token for a number that is up: %v", err)
	}

	// A joiner whose reply was lost asks again and gets the same; another machine
	// with its token gets nothing.
	hash := hashOf(t, m.token(0, time.Hour))
	req := pki.JoinRequest{PublicKey: []byte("one"), Hostname: "h"}
	for range 2 {
		if g, err := j.Use(m.ctx(), hash, req); err != nil || g.Node != 3 || g.ClusterName != "test" || g.Profile != "fast" ||
			len(g.Members) != 1 || g.Members[0].Address != m.addr {
			t.Errorf("the grant is %+v, %v", g, err)
		}
	}
	if g, err := j.Use(m.ctx(), hash, pki.JoinRequest{PublicKey: []byte("two")}); !errno.Is(err, errno.Exists) {
		t.Errorf("another machine got %+v, %v", g, err)
	}
	if g, err := j.Use(m.ctx(), hashOf(t, m.token(0, time.Hour)), pki.JoinRequest{PublicKey: []byte("x"), Wanted: 3}); !errno.Is(err, errno.Exists) {
		t.Errorf("a number that was given out before: %+v, %v", g, err)
	}
	if g, err := j.Use(m.ctx(), hashOf(t, m.token(3, time.Hour)), pki.JoinRequest{PublicKey: []byte("x")}); err != nil || g.Node != 3 {
		t.Errorf("a token for it: %+v, %v", g, err)
	}

	// Many at once.
	const many = 24
	given := make(chan id.Node, many)
	for i := range many {
		hash := hashOf(t, m.token(0, time.Hour))
		go func() {
			g, err := j.Use(m.ctx(), hash, pki.JoinRequest{PublicKey: []byte{byte(i)}})
			if err != nil {
				t.Errorf("joiner %d: %v", i, err)
			}
			given <- g.Node
		}()
	}
	seen := map[id.Node]bool{}
	for range many {
		n := <-given
		if n < 4 || n >= 4+many || seen[n] {
			t.Errorf("number %d was given out", n)
		}
		seen[n] = true
	}
	forgetsTokens(t, m)
	reissues(t, m)
}

func hashOf(t *testing.T, secret string) pki.TokenHash {
	t.Helper()
	tok, err := pki.ParseToken(secret)
	if err != nil {
		t.Fatal(err)
	}
	return tok.Hash()
}

// forgetsTokens: tokens are forgotten a while after nobody can use them.
func forgetsTokens(t *testing.T, m *machine) {
	t.Helper()
	old, recent := hashOf(t, m.token(0, -tokenMemory-time.Hour)), hashOf(t, m.token(0, -time.Minute))
	if err := m.c.forgetTokens(m.ctx()); err != nil {
		t.Fatal(err)
	}
	view := m.c.Registry().Stale()
	if _, err := view.Get(keyToken(old)); !errno.Is(err, errno.NotFound) {
		t.Errorf("an old token: %v", err)
	}
	if _, err := view.Get(keyToken(recent)); err != nil {
		t.Errorf("a token that expired a minute ago: %v", err)
	}
}

// reissues: a certificate is good after a revocation, even if the clock of the
// node that revoked was ahead of the issuer's.
func reissues(t *testing.T, m *machine) {
	t.Helper()
	before, err := time.Now().Add(time.Hour).Add(-pki.ClockTolerance).UTC().Truncate(time.Second).MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.c.Registry().Put(m.ctx(), true, keyRevokedNode(50), before, 0); err != nil {
		t.Fatal(err)
	}
	if !m.c.isRevoked(pki.Identity{Node: 50, NotBefore: time.Now().Add(-pki.ClockTolerance)}) {
		t.Error("a certificate of before is good")
	}
	joiner, err := admit(t, m.token(50, time.Hour), m.addr)
	if err != nil {
		t.Fatal(err)
	}
	material, err := pki.Load(joiner.dir)
	if err != nil {
		t.Fatal(err)
	}
	who, err := pki.IdentityOf(material.Cert)
	if err != nil || m.c.isRevoked(who) {
		t.Errorf("the certificate of %+v is revoked already, %v", who, err)
	}
	if _, err := m.c.Registry().Put(m.ctx(), true, keyRevokedNode(50), []byte("garbage"), 0); err != nil {
		t.Fatal(err)
	}
	if !m.c.isRevoked(who) {
		t.Error("a revocation that cannot be read does not count")
	}
}

// TestFoundedTwice: a node that crashed when the secrets were in the registry, and
// the file still there, changes nothing when it starts again.
func TestFoundedTwice(t *testing.T) {
	t.Parallel()
	m, _ := found(t, "fast", 1)
	path := filepath.Join(m.dir, fileFounding)
	secrets, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m.founded()
	before, err := m.c.Registry().Stale().Get(keyCAKey)
	if err != nil {
		t.Fatal(err)
	}
	m.halt()
	if err := os.WriteFile(path, secrets, 0o600); err != nil {
		t.Fatal(err)
	}
	m.start()
	until(t, "the file to go", func() bool { return !exists(path) })
	after, err := m.c.Registry().Stale().Get(keyCAKey)
	if err != nil || after.Mod != before.Mod {
		t.Errorf("the key was written again: %+v, %v", after, err)
	}
}

// TestJoinInsteadOfFounding: a machine that crashed while it founded a cluster, and
// joins another one then, does not found after all.
func TestJoinInsteadOfFounding(t *testing.T) {
	t.Parallel()
	first, tokens := found(t, "fast", 1)
	first.founded()
	m := newMachine(t)
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(founding{CAKey: []byte("of another")})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.dir, fileFounding), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := m.join(tokens[0], first.addr); err != nil {
		t.Fatal(err)
	}
	m.start()
	first.sees(2, member.Up)
	m.sees(1, member.Up)
	if s := m.c.Status().Load(); s.RaftID == core.FirstRaftID(2) && s.Leader == 2 {
		t.Errorf("it founded a cluster of its own: %+v", s)
	}
}

// TestInboxLimits: messages that nobody takes fill the inbox up to its limits.
func TestInboxLimits(t *testing.T) {
	var j journal
	c := &Cluster{log: j.logger(), inbox: make(chan inbound, maxInbox)}
	raw, err := core.Encode(&core.Message{Version: 1, Cluster: "c", Raft: [][]byte{make([]byte, 900<<10)}})
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		c.receive(2, raw)
	}
	if n, bytes := len(c.inbox), c.inboxBytes.Load(); int64(n) != maxInboxBytes/int64(len(raw)) || bytes != int64(n*len(raw)) {
		t.Errorf("%d messages of %d bytes wait", n, bytes)
	}
	c.receive(2, []byte("\xff\xff"))
	if !strings.Contains(j.String(), "message dropped") {
		t.Error("garbage was taken")
	}
}
