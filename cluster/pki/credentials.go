package pki

import (
	"crypto/tls"
	"crypto/x509"

	"ssi/internal/id"
)

// Credentials is what the transport needs: the certificate this node presents
// and the judgement on those of others.
type Credentials struct {
	cert     *tls.Certificate
	verifier Verifier
}

// NewCredentials makes them from a node's material. revoked may be nil; it is
// asked at every handshake and recheck, from many goroutines.
func NewCredentials(m Material, revoked func(Identity) bool) *Credentials {
	return &Credentials{cert: m.TLS(), verifier: Verifier{CA: m.CA, Revoked: revoked}}
}

// Certificate is the chain to present.
func (c *Credentials) Certificate() *tls.Certificate { return c.cert }

// VerifyPeer is Verifier.Verify in the transport's terms.
func (c *Credentials) VerifyPeer(chain []*x509.Certificate) (id.Node, string, error) {
	who, err := c.verifier.Verify(chain)
	return who.Node, string(who.Role), err
}
