package cluster

import (
	"fmt"
	"strings"

	"ssi/cluster/pki"
	"ssi/internal/id"
)

// Keys of the registry that the cluster itself uses. Only the daemons write
// below /sys, and what lies below secretPrefix is shown to nobody.
const (
	keyCAKey      = "/sys/secret/ca-key"
	secretPrefix  = "/sys/secret"
	keyTokens     = "/sys/token"
	keyNumbers    = "/sys/number"
	keyRevoked    = "/sys/revoked"
	keyShutdown   = "/sys/shutdown"
	keyNodeupDone = "/sys/hooks/nodeup"

	// LinksPrefix begins the keys in which each node tells what became of its links.
	LinksPrefix = "/sys/links/"
)

func keyToken(h pki.TokenHash) string { return keyTokens + "/" + h.String() }
func keyNumber(n id.Node) string      { return fmt.Sprintf("%s/%d", keyNumbers, n) }
func keyRevokedNode(n id.Node) string { return fmt.Sprintf("%s/%d", keyRevoked, n) }

// SecretKey reports whether a key is shown to nobody.
func SecretKey(key string) bool {
	return key == secretPrefix || strings.HasPrefix(key, secretPrefix+"/")
}

// LinksKey is where a node tells what became of its links.
func LinksKey(n id.Node) string { return LinksPrefix + n.String() }

// OrderKey is where the order to shut a node down is kept.
func OrderKey(n id.Node) string { return fmt.Sprintf("%s/%d", keyShutdown, n) }
