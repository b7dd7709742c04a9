package pki

import (
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"time"

	"ssi/internal/id"
)

// Role is what a certificate lets its holder be in the cluster.
type Role string

// The roles. A witness votes and does nothing else.
const (
	RoleNode    Role = "node"
	RoleWitness Role = "witness"
)

// Valid reports whether r is a role this version knows.
func (r Role) Valid() bool { return r == RoleNode || r == RoleWitness }

// clusterIDLen is the length of a cluster ID in hexadecimal digits (128 bits).
const clusterIDLen = 32

// Identity is who a certificate says its holder is. Serial and NotBefore tell
// certificates of the same node apart, for revocation.
type Identity struct {
	Cluster   string // 32 hexadecimal digits
	Node      id.Node
	Role      Role
	Serial    string // hexadecimal
	NotBefore time.Time
}

func (i Identity) String() string {
	return fmt.Sprintf("%s %d of cluster %s", i.Role, i.Node, i.Cluster)
}

// validClusterID reports whether s is a cluster ID: lower-case hexadecimal of
// the fixed length, hence harmless in a log even when a stranger sent it.
func validClusterID(s string) bool {
	if len(s) != clusterIDLen || strings.ToLower(s) != s {
		return false
	}
	_, err := hex.DecodeString(s)
	return err == nil
}

// identityURI is the URI that names a node in its certificate.
func identityURI(cluster string, node id.Node, role Role) *url.URL {
	return &url.URL{Scheme: "ssi", Host: cluster, Path: fmt.Sprintf("/%s/%d", role, node)}
}

// IdentityOf reads the identity out of a certificate. It checks only the form:
// that the claim is true is Verifier's work.
func IdentityOf(cert *x509.Certificate) (Identity, error) {
	if len(cert.URIs) != 1 {
		return Identity{}, fmt.Errorf("certificate has %d URIs, a node's has exactly one", len(cert.URIs))
	}
	u := cert.URIs[0]
	if u.Scheme != "ssi" || !validClusterID(u.Host) {
		return Identity{}, fmt.Errorf("certificate is not an ssi certificate")
	}
	role, number, ok := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	node, err := id.ParseNode(number)
	if !ok || err != nil || !Role(role).Valid() {
		return Identity{}, fmt.Errorf("certificate names no node: malformed path in its URI")
	}
	if *identityURI(u.Host, node, Role(role)) != *u {
		return Identity{}, fmt.Errorf("certificate has a malformed node URI")
	}
	return Identity{Cluster: u.Host, Node: node, Role: Role(role), Serial: serialText(cert), NotBefore: cert.NotBefore}, nil
}

func serialText(cert *x509.Certificate) string {
	if cert.SerialNumber == nil {
		return ""
	}
	return cert.SerialNumber.Text(16)
}
