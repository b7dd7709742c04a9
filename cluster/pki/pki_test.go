package pki

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ssi/internal/id"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newCA(t testing.TB) *CAKey {
	t.Helper()
	ca, err := NewCA("test", time.Now())
	must(t, err)
	return ca
}

func issue(t testing.TB, ca *CAKey, n id.Node, now time.Time) Material {
	t.Helper()
	key, err := NewKey()
	must(t, err)
	der, err := ca.Issue(n, RoleNode, key.Public().(ed25519.PublicKey), now)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return Material{CA: &ca.CA, Cert: cert, Key: key}
}

func TestVerify(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	good := issue(t, ca, 5, time.Now())
	v := Verifier{CA: &ca.CA}
	who, err := v.Verify([]*x509.Certificate{good.Cert})
	must(t, err)
	if who.Node != 5 || who.Role != RoleNode || who.Cluster != ca.Cluster || who.Serial == "" {
		t.Fatalf("got %+v", who)
	}
	// A CA of our cluster's name and ID, but another key.
	forged := *other
	forged.Cluster = ca.Cluster
	_, strayKey, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	bare := rawCert(t, ca, strayKey, func(c *x509.Certificate) { c.URIs = nil })
	server := rawCert(t, ca, strayKey, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] })
	ahead, behind := time.Now().Add(72*time.Hour), time.Now().Add(-120*time.Hour)

	for name, c := range map[string]struct {
		cert  *x509.Certificate
		v     Verifier
		want  error
		words string
	}{
		"none":            {nil, v, ErrNoCertificate, ""},
		"foreign":         {issue(t, other, 5, time.Now()).Cert, v, ErrForeign, other.Cluster},
		"forged":          {issue(t, &forged, 5, time.Now()).Cert, v, ErrNotSigned, ""},
		"no URI":          {bare, v, ErrMalformed, ""},
		"one usage":       {server, v, ErrMalformed, ""},
		"CA itself":       {ca.Cert, v, ErrMalformed, ""},
		"revoked":         {good.Cert, Verifier{CA: &ca.CA, Revoked: func(i Identity) bool { return i.Node == 5 }}, ErrRevoked, "node 5"},
		"clock behind":    {good.Cert, Verifier{CA: &ca.CA, Now: func() time.Time { return behind }}, ErrTooEarly, "check the clock"},
		"clock far ahead": {good.Cert, Verifier{CA: &ca.CA, Now: func() time.Time { return good.Cert.NotAfter.Add(72 * time.Hour) }}, ErrExpired, "check the clock"},
	} {
		t.Run(name, func(t *testing.T) {
			chain := []*x509.Certificate{c.cert}
			if c.cert == nil {
				chain = nil
			}
			who, err := c.v.Verify(chain)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.words) || who != (Identity{}) {
				t.Fatalf("got %v, %v; want %v with %q", who, err, c.want, c.words)
			}
		})
	}
	for _, off := range []time.Duration{-time.Hour, time.Hour, -90 * time.Hour} {
		v.Now = func() time.Time { return time.Now().Add(off) }
		if _, err := v.Verify([]*x509.Certificate{good.Cert}); err != nil {
			t.Errorf("clock off by %v: %v", off, err)
		}
	}
	v.Now = func() time.Time { return ahead }
	_, err = v.Verify([]*x509.Certificate{good.Cert})
	must(t, err)
}

// rawCert is a certificate of our CA that Issue would not make.
func rawCert(t testing.TB, ca *CAKey, key ed25519.PrivateKey, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "x"}, URIs: []*url.URL{identityURI(ca.Cluster, 5, RoleNode)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Cert, key.Public(), ca.key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return cert
}

func TestIdentityURIs(t *testing.T) {
	ca := newCA(t)
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	for _, text := range []string{
		"ssi://" + ca.Cluster + "/node/0", "ssi://" + ca.Cluster + "/node/128", "ssi://" + ca.Cluster + "/node/05",
		"ssi://" + ca.Cluster + "/node/+5", "ssi://" + ca.Cluster + "/root/5", "ssi://" + ca.Cluster + "/node/5/", "ssi://" + ca.Cluster + "/node/5?x=1",
		"ssi://u@" + ca.Cluster + "/node/5", "ssi://" + strings.ToUpper(ca.Cluster) + "F/node/5", "https://" + ca.Cluster + "/node/5", "ssi://" + ca.Cluster + "/node/5#f",
	} {
		u, err := url.Parse(text)
		must(t, err)
		cert := rawCert(t, ca, key, func(c *x509.Certificate) { c.URIs = []*url.URL{u} })
		if who, err := IdentityOf(cert); err == nil {
			t.Errorf("%s taken for %v", text, who)
		}
	}
}

func TestToken(t *testing.T) {
	ca := newCA(t)
	tok, err := NewToken(&ca.CA, 9, RoleWitness, time.Now().Add(time.Hour))
	must(t, err)
	back, err := ParseToken(" " + tok.Secret() + "\n")
	must(t, err)
	if back != tok {
		t.Fatal("token changed on the way")
	}
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"empty":     {"", ErrNotToken},
		"word":      {"hello", ErrNotToken},
		"truncated": {tok.Secret()[:60], ErrTokenMistyped},
		"one char":  {flip(tok.Secret(), 30), ErrTokenMistyped},
		"last char": {flip(tok.Secret(), len(tok.Secret())-1), ErrTokenMistyped},
		"huge":      {tokenPrefix + strings.Repeat("A", 1<<20), ErrNotToken},
	} {
		if _, err := ParseToken(c.text); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

func flip(s string, i int) string {
	c := byte('A')
	if s[i] == c {
		c = 'B'
	}
	return s[:i] + string(c) + s[i+1:]
}

func TestSecretsAreNotPrinted(t *testing.T) {
	ca := newCA(t)
	tok, err := NewToken(&ca.CA, 0, RoleNode, time.Now())
	must(t, err)
	m := issue(t, ca, 1, time.Now())
	secrets := []string{fmt.Sprint([]byte(ca.key))[1:40], fmt.Sprint(tok.seed)[1:40], tok.Secret(), fmt.Sprint([]byte(m.Key))[1:40], fmt.Sprintf("%x", tok.seed), hex.EncodeToString(m.Key[:32])}
	for _, v := range []any{ca, tok, &tok, m, &m} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
			out := fmt.Sprintf(verb, v)
			for _, s := range secrets {
				if strings.Contains(out, s) {
					t.Errorf("%T printed with %s shows a secret: %s", v, verb, out)
				}
			}
		}
	}
}

func TestStore(t *testing.T) {
	ca := newCA(t)
	m := issue(t, ca, 3, time.Now())
	dir := filepath.Join(t.TempDir(), "ssi")
	if _, err := Load(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("never joined: %v", err)
	}
	must(t, m.Save(dir))
	must(t, ca.SaveCAKey(dir))
	back, err := Load(dir)
	must(t, err)
	if !back.Key.Equal(m.Key) || !back.Cert.Equal(m.Cert) || back.CA.Cluster != ca.Cluster {
		t.Fatal("material changed on the way")
	}
	key, err := LoadCAKey(dir)
	must(t, err)
	if !key.key.Equal(ca.key) {
		t.Fatal("CA key changed on the way")
	}
	files, err := os.ReadDir(dir)
	must(t, err)
	for _, f := range files {
		info, err := f.Info()
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", f.Name(), info.Mode().Perm())
		}
	}
	if len(files) != 4 {
		t.Errorf("%d files, want 4", len(files))
	}

	must(t, os.Chmod(filepath.Join(dir, FileKey), 0o640))
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("key readable by the group: %v", err)
	}
	must(t, os.Chmod(filepath.Join(dir, FileKey), 0o600))

	otherNode := issue(t, ca, 3, time.Now())
	must(t, writeFile(filepath.Join(dir, FileCert), certPEM(otherNode.Cert.Raw)))
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "do not belong together") {
		t.Errorf("certificate of another key: %v", err)
	}
	must(t, writeFile(filepath.Join(dir, FileCert), []byte("garbage")))
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), FileCert) {
		t.Errorf("damaged certificate: %v", err)
	}
	must(t, newCA(t).SaveCAKey(t.TempDir()))
	must(t, writeFile(filepath.Join(dir, FileCA), certPEM(newCA(t).Cert.Raw)))
	if _, err := LoadCAKey(dir); err == nil || !strings.Contains(err.Error(), "does not belong") {
		t.Errorf("CA of another key: %v", err)
	}
}

func TestClusterNames(t *testing.T) {
	for _, name := range []string{"", "a b", "a\nb", strings.Repeat("a", 65), "ä"} {
		if _, err := NewCA(name, time.Now()); err == nil {
			t.Errorf("name %q accepted", name)
		}
	}
}

func FuzzToken(f *testing.F) {
	ca := newCA(f)
	tok, err := NewToken(&ca.CA, 9, RoleNode, time.Unix(1<<31, 0))
	must(f, err)
	f.Add(tok.Secret())
	f.Add("ssi1-")
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := ParseToken(text)
		if err == nil && tok.Secret() != strings.TrimSpace(text) {
			t.Fatalf("%q is read as a token that is written %q", text, tok.Secret())
		}
	})
}

func FuzzJoinRequest(f *testing.F) {
	f.Add([]byte(`{"public_key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","proof":"","hostname":"a","wanted":3}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeJoinRequest(b)
		if err == nil && (len(r.PublicKey) != 32 || len(r.Proof) != 64 || r.Wanted > id.MaxNode || strings.ContainsAny(r.Hostname+r.Address+r.Version, "\x1b\n ")) {
			t.Fatalf("accepted %+v", r)
		}
	})
}

func FuzzIdentity(f *testing.F) {
	ca := newCA(f)
	f.Add(issue(f, ca, 4, time.Now()).Cert.Raw)
	f.Add(ca.Cert.Raw)
	v := Verifier{CA: &ca.CA}
	f.Fuzz(func(t *testing.T, der []byte) {
		_, _ = ParseCA(der)
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		who, err := v.Verify([]*x509.Certificate{cert})
		if err == nil && (!who.Node.Valid() || who.Cluster != ca.Cluster) {
			t.Fatalf("accepted %+v", who)
		}
	})
}
