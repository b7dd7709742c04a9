package pki

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/url"
	"strings"
	"time"

	"ssi/internal/id"
)

const (
	// ClockTolerance is how far a clock may be off without a certificate being
	// refused: certificates start this much before their making, and validity
	// is checked with this much slack.
	ClockTolerance = 48 * time.Hour

	// caLifetime outlives the hardware. Expiry is no means of control here:
	// a cluster that stops at a date nobody remembers is an outage, and access
	// is withdrawn by revocation.
	caLifetime = 50 * 365 * 24 * time.Hour

	// MaxClusterName is the longest cluster name in bytes (ub-common-name of
	// RFC 5280, appendix A.1).
	MaxClusterName = 64
)

// CA is a cluster's certificate authority, without its private key: what every
// node has.
type CA struct {
	Cert    *x509.Certificate
	Cluster string // the cluster's ID
	Name    string // the cluster's name when it was created
}

// CAKey is the certificate authority with its private key.
type CAKey struct {
	CA
	key ed25519.PrivateKey
}

// String names it; like its relatives below it keeps the key out of messages.
func (k *CAKey) String() string { return "CA key of cluster " + k.Cluster }

// GoString is String.
func (k *CAKey) GoString() string { return k.String() }

// LogValue is String.
func (k *CAKey) LogValue() slog.Value { return slog.StringValue(k.String()) }

// Format is String, whatever the verb.
func (k *CAKey) Format(s fmt.State, _ rune) { fmt.Fprint(s, k.String()) }

// NewCA creates the authority of a new cluster. now is this machine's time.
func NewCA(name string, now time.Time) (*CAKey, error) {
	if err := checkClusterName(name); err != nil {
		return nil, err
	}
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("create cluster key: %w", err)
	}
	var raw [clusterIDLen / 2]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return nil, fmt.Errorf("create cluster ID: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name, SerialNumber: hex.EncodeToString(raw[:])},
		NotBefore:             now.Add(-ClockTolerance),
		NotAfter:              now.Add(caLifetime),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, pub, key)
	if err != nil {
		return nil, fmt.Errorf("create cluster certificate: %w", err)
	}
	ca, err := ParseCA(der)
	if err != nil {
		return nil, err
	}
	return &CAKey{CA: *ca, key: key}, nil
}

func checkClusterName(name string) error {
	if name == "" || len(name) > MaxClusterName {
		return fmt.Errorf("cluster name has %d bytes, allowed are 1 to %d", len(name), MaxClusterName)
	}
	for _, r := range name {
		ok := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r)
		if !ok {
			return fmt.Errorf("cluster name %q: allowed are letters, digits, dot, underscore and minus", name)
		}
	}
	return nil
}

// ParseCA reads a cluster's CA certificate (DER) and checks that it is one.
func ParseCA(der []byte) (*CA, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("CA certificate is damaged: %w", err)
	}
	if !cert.IsCA || cert.PublicKeyAlgorithm != x509.Ed25519 || !validClusterID(cert.Subject.SerialNumber) {
		return nil, errors.New("not the CA certificate of an ssi cluster")
	}
	if err := checkClusterName(cert.Subject.CommonName); err != nil {
		return nil, err
	}
	if err := cert.CheckSignatureFrom(cert); err != nil {
		return nil, fmt.Errorf("CA certificate is damaged: its own signature does not fit: %w", err)
	}
	return &CA{Cert: cert, Cluster: cert.Subject.SerialNumber, Name: cert.Subject.CommonName}, nil
}

// Pin is the hash by which a token pins this CA: SHA-256 of its public key
// (SubjectPublicKeyInfo).
func (c *CA) Pin() [32]byte { return sha256.Sum256(c.Cert.RawSubjectPublicKeyInfo) }

// Issue signs a certificate for the holder of the private key of pub. It is
// valid as long as the CA. The result is DER.
func (k *CAKey) Issue(node id.Node, role Role, pub ed25519.PublicKey, now time.Time) ([]byte, error) {
	if !node.Valid() || !role.Valid() || len(pub) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("issue certificate: bad node %d, role %q or key of %d bytes", node, role, len(pub))
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: fmt.Sprintf("%s-%d", role, node)},
		URIs:                  []*url.URL{identityURI(k.Cluster, node, role)},
		NotBefore:             now.Add(-ClockTolerance),
		NotAfter:              k.Cert.NotAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, k.Cert, pub, k.key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate for node %d: %w", node, err)
	}
	return der, nil
}

// IssueMaterial is Issue for a key of this machine: what the first node of a
// cluster starts with.
func (k *CAKey) IssueMaterial(node id.Node, role Role, key ed25519.PrivateKey, now time.Time) (Material, error) {
	der, err := k.Issue(node, role, key.Public().(ed25519.PublicKey), now)
	if err != nil {
		return Material{}, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return Material{}, fmt.Errorf("issue certificate for node %d: %w", node, err)
	}
	return Material{CA: &k.CA, Cert: cert, Key: key}, nil
}

// MarshalKey is the private key as PEM (PKCS 8), for a file only root reads.
func (k *CAKey) MarshalKey() ([]byte, error) { return marshalKey(k.key) }

// NewCAKey joins a CA with its private key (PEM, PKCS 8) and checks that they
// belong together.
func NewCAKey(ca *CA, keyPEM []byte) (*CAKey, error) {
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(key.Public().(ed25519.PublicKey), ca.Cert.PublicKey.(ed25519.PublicKey)) {
		return nil, errors.New("the CA key does not belong to the CA certificate")
	}
	return &CAKey{CA: *ca, key: key}, nil
}

// NewKey makes the private key of a node.
func NewKey() (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("create node key: %w", err)
	}
	return key, nil
}

func newSerial() (*big.Int, error) {
	// 127 random bits: positive and well under the 20 octets of RFC 5280, 4.1.2.2.
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("create certificate serial: %w", err)
	}
	return serial.Add(serial, big.NewInt(1)), nil
}

func marshalKey(key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func parseKey(text []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("private key is damaged: no PEM block PRIVATE KEY")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("private key is damaged: not PKCS 8") // the cause could quote the key
	}
	key, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("private key is not an ed25519 key")
	}
	return key, nil
}
