// Package pki says who belongs to the cluster: its certificate authority, the
// certificates of its nodes and the one-time tokens by which a machine joins.
//
// # Identity
//
// A cluster is one ed25519 certificate authority with a random 128-bit ID. A
// node certificate carries the URI ssi://CLUSTERID/node/N (or /witness/N); the
// number N is who the node is, whatever its address. There are no host names
// in certificates, so verification is our own (Verifier): signed by the pinned
// CA, of this cluster, with a well-formed URI, not revoked, within its validity
// give or take 48 hours. Each refusal names its own reason.
//
// # Joining
//
// A token holds a hash that pins the CA and the seed of an ed25519 key. The
// joiner presents a self-signed certificate of that key in a TLS handshake
// (ALPN ssi-join); the server knows only the hash of the public key, so the
// secret never crosses the wire and a stolen registry gives no tokens. A
// stranger's handshake fails before a byte of the protocol is read. Inside,
// one request and one reply cross (join_wire.go). A token is used up when the
// Authority says so, once; the same joiner key may repeat the request for
// RetryWindow, because the reply may have been lost.
//
// # Limits
//
// A token string is at most maxTokenText bytes, a join message at most
// maxJoinMessage bytes, a join conversation at most joinTimeout; how many
// conversations run at once is bounded by the transport.
//
// # Goroutines and locks
//
// The package starts no goroutine and has no lock: values do not change after
// they are made. The functions a caller supplies (Verifier.Revoked, Authority)
// must be safe for concurrent use.
//
// # Never
//
// It must never print key material (String, GoString and LogValue redact),
// send a secret, accept a key file that others can read, or read the clock of
// a peer.
package pki
