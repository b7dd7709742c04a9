package pki

import (
	"crypto/ed25519"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"ssi/internal/errno"
	"ssi/internal/id"
)

const (
	// ALPN is the protocol name under which the join conversation runs.
	ALPN = "ssi-join"

	// RetryWindow is how long after its use a token still answers the very
	// joiner key that used it, because the reply may have been lost.
	RetryWindow = 60 * time.Second

	// maxJoinMessage bounds a request or reply. A reply carries the addresses
	// of up to 127 peers.
	maxJoinMessage = 64 << 10

	// joinTimeout bounds the conversation after the handshake, which includes
	// a write to the registry.
	joinTimeout = 20 * time.Second

	maxHostname = 64  // HOST_NAME_MAX of Linux
	maxAddress  = 259 // a DNS name of 253 bytes, a colon, a port
)

// JoinRequest is what a joining machine says about itself. Frames are a
// four-byte big-endian length and JSON: this is spoken once per machine, and
// between versions further apart than any other protocol of ssi.
type JoinRequest struct {
	PublicKey []byte  `json:"public_key"` // ed25519, of the new node key
	Proof     []byte  `json:"proof"`      // signature by that key, bound to this connection
	Hostname  string  `json:"hostname"`
	Wanted    id.Node `json:"wanted,omitempty"`  // 0: any
	Address   string  `json:"address,omitempty"` // host:port where the node will listen
	Version   string  `json:"version,omitempty"` // of ssi, for the log
}

// Member is a node a joiner may talk to.
type Member struct {
	Node    id.Node `json:"node"`
	Address string  `json:"address"`
}

// joinReply answers a JoinRequest: a grant, or Kind and Refusal.
type joinReply struct {
	Kind        errno.Kind `json:"kind,omitempty"`
	Refusal     string     `json:"refusal,omitempty"`
	Node        id.Node    `json:"node,omitempty"`
	Certificate []byte     `json:"certificate,omitempty"` // DER
	ClusterName string     `json:"cluster_name,omitempty"`
	Profile     string     `json:"profile,omitempty"` // timing profile of the cluster
	Members     []Member   `json:"members,omitempty"`
}

// decodeJoinRequest reads and checks a request; what it returns is safe to log.
func decodeJoinRequest(b []byte) (JoinRequest, error) {
	var r JoinRequest
	if err := json.Unmarshal(b, &r); err != nil {
		return JoinRequest{}, fmt.Errorf("join request is malformed: %w", err)
	}
	switch {
	case len(r.PublicKey) != ed25519.PublicKeySize:
		return JoinRequest{}, errors.New("join request has no ed25519 public key")
	case len(r.Proof) != ed25519.SignatureSize:
		return JoinRequest{}, errors.New("join request has no proof of its key")
	case r.Wanted > id.MaxNode:
		return JoinRequest{}, fmt.Errorf("join request wants node number %d, allowed are 1 to %d", r.Wanted, id.MaxNode)
	case !printable(r.Hostname, maxHostname):
		return JoinRequest{}, errors.New("join request has a bad host name")
	case !printable(r.Address, maxAddress):
		return JoinRequest{}, errors.New("join request has a bad address")
	case !printable(r.Version, maxHostname):
		return JoinRequest{}, errors.New("join request has a bad version")
	}
	return r, nil
}

// printable reports whether s is short and of visible ASCII only.
func printable(s string, limit int) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return len(s) <= limit
}

// proofText is what the joiner signs: bound to the TLS connection, so that a
// request cannot be replayed on another one.
func proofText(cs *tls.ConnectionState, hash TokenHash) ([]byte, error) {
	binding, err := cs.ExportKeyingMaterial("EXPORTER-ssi-join", hash[:], 32)
	if err != nil {
		return nil, fmt.Errorf("bind to the connection: %w", err)
	}
	return append([]byte("ssi join v1\x00"), binding...), nil
}

func writeFrame(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode join message: %w", err)
	}
	if len(body) > maxJoinMessage {
		return fmt.Errorf("join message of %d bytes is too long", len(body))
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

func readFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxJoinMessage {
		return nil, fmt.Errorf("join message of %d bytes is too long", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	return body, nil
}
