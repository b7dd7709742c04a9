package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Why a certificate is refused. The errors of Verify wrap one of these.
var (
	ErrNoCertificate = errors.New("no certificate presented")
	ErrMalformed     = errors.New("malformed certificate")
	ErrForeign       = errors.New("certificate belongs to another cluster")
	ErrNotSigned     = errors.New("certificate claims this cluster but its CA did not sign it")
	ErrRevoked       = errors.New("certificate is revoked")
	ErrTooEarly      = errors.New("certificate is not yet valid")
	ErrExpired       = errors.New("certificate has expired")
)

// Verifier decides whether a certificate belongs to a node of the cluster.
type Verifier struct {
	CA      *CA
	Revoked func(Identity) bool // nil: none is revoked; must be quick and not block
	Now     func() time.Time    // nil: time.Now
}

// Verify checks the certificate a peer presented (the first of its chain) and
// returns who the peer is. That the peer holds the private key is checked by
// TLS itself.
func (v *Verifier) Verify(chain []*x509.Certificate) (Identity, error) {
	if len(chain) == 0 {
		return Identity{}, ErrNoCertificate
	}
	cert := chain[0]
	who, err := IdentityOf(cert)
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if who.Cluster != v.CA.Cluster {
		return Identity{}, fmt.Errorf("%w %s (this is cluster %s)", ErrForeign, who.Cluster, v.CA.Cluster)
	}
	if err := cert.CheckSignatureFrom(v.CA.Cert); err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrNotSigned, err)
	}
	// Signed by us from here on; the rest guards against a CA used wrongly.
	if cert.IsCA || cert.PublicKeyAlgorithm != x509.Ed25519 || len(cert.UnhandledCriticalExtensions) > 0 ||
		!slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth) || !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth) {
		return Identity{}, fmt.Errorf("%w: not a certificate for node traffic", ErrMalformed)
	}
	if v.Revoked != nil && v.Revoked(who) {
		return Identity{}, fmt.Errorf("%w: %s %d, serial %s", ErrRevoked, who.Role, who.Node, who.Serial)
	}
	if err := checkValidity(cert, v.now()); err != nil {
		return Identity{}, err
	}
	return who, nil
}

func (v *Verifier) now() time.Time {
	if v.Now != nil {
		return v.Now()
	}
	return time.Now()
}

func checkValidity(cert *x509.Certificate, now time.Time) error {
	if now.Before(cert.NotBefore.Add(-ClockTolerance)) {
		return fmt.Errorf("%w: this node's clock says %s, the certificate starts %s; check the clock",
			ErrTooEarly, stamp(now), stamp(cert.NotBefore))
	}
	if now.After(cert.NotAfter.Add(ClockTolerance)) {
		return fmt.Errorf("%w: this node's clock says %s, the certificate ended %s; check the clock, or join the node anew",
			ErrExpired, stamp(now), stamp(cert.NotAfter))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }
