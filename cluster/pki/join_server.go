package pki

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// TokenRecord is what the cluster keeps of a token it gave out. It contains
// nothing with which to join.
type TokenRecord struct {
	Expiry time.Time `json:"expiry"`
	Node   id.Node   `json:"node,omitempty"` // the number the token is good for; 0: any
	Role   Role      `json:"role"`

	// Set by use:
	UsedAt time.Time `json:"used_at,omitzero"`
	UsedBy []byte    `json:"used_by,omitempty"` // public key of the joiner
	Given  id.Node   `json:"given,omitempty"`   // the number it was given
}

// Record is the TokenRecord of a new token.
func (t Token) Record() TokenRecord {
	return TokenRecord{Expiry: t.Expiry, Node: t.Node, Role: t.Role}
}

// Usable decides whether the token may be used at time now by the holder of
// joinerKey; nil stands for a joiner not known yet (during the handshake). A
// pure function of its arguments, for use inside the replicated state: there,
// now is the time written into the command by its proposer.
func (r TokenRecord) Usable(now time.Time, joinerKey []byte) error {
	if !r.UsedAt.IsZero() {
		if now.Sub(r.UsedAt) > RetryWindow || joinerKey != nil && string(joinerKey) != string(r.UsedBy) {
			return errno.New(errno.Exists, "join", 0, "token was already used %s for node %d; make a new one: ssi cluster token", stamp(r.UsedAt), r.Given)
		}
		return nil // a retry; the expiry was checked when it was used
	}
	if now.After(r.Expiry) {
		return errno.New(errno.Timeout, "join", 0, "token expired %s; make a new one: ssi cluster token", stamp(r.Expiry))
	}
	return nil
}

// Grant is what the cluster gives to a joiner whose token was good.
type Grant struct {
	Node        id.Node
	Role        Role
	ClusterName string
	Profile     string // timing profile of the cluster
	Members     []Member
}

// Authority is the cluster's book of tokens and node numbers, kept in its
// replicated state.
type Authority interface {
	// Ready is why no token can be judged at the moment. It is called when a
	// handshake begins and must end with ctx.
	Ready(ctx context.Context) error

	// Lookup finds a token; errno.NotFound if the cluster gave out no such one.
	// It is called during handshakes and must end with ctx.
	Lookup(ctx context.Context, hash TokenHash) (TokenRecord, error)

	// Use consumes the token for the key in req and fixes the node number, in
	// one atomic step: it checks TokenRecord.Usable with req.PublicKey, that
	// req.Wanted (if not 0) fits TokenRecord.Node (if not 0) and is free, and
	// writes UsedAt, UsedBy, Given. A repeat by the same key gives the same
	// grant. Its errors are told to the joiner.
	Use(ctx context.Context, hash TokenHash, req JoinRequest) (Grant, error)
}

// Issuer signs node certificates; a *CAKey is one.
type Issuer interface {
	Issue(node id.Node, role Role, pub ed25519.PublicKey, now time.Time) ([]byte, error)
}

// JoinServer answers joining machines.
type JoinServer struct {
	Authority Authority
	Issuer    Issuer
	Log       *slog.Logger
	Now       func() time.Time // nil: time.Now
}

func (s *JoinServer) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// Ready is why nobody can be admitted at the moment. A joiner whose handshake
// fails for that reason at its beginning knows that it is not for its token.
func (s *JoinServer) Ready(ctx context.Context) error { return s.Authority.Ready(ctx) }

// VerifyToken decides in the TLS handshake whether the certificate is that of
// an outstanding token. Its error is for the log of this node only.
func (s *JoinServer) VerifyToken(ctx context.Context, cert *x509.Certificate) ([32]byte, error) {
	if cert.PublicKeyAlgorithm != x509.Ed25519 {
		return TokenHash{}, errors.New("join: certificate is not that of a token")
	}
	hash := TokenHash(sha256.Sum256(cert.RawSubjectPublicKeyInfo))
	rec, err := s.Authority.Lookup(ctx, hash)
	if err != nil {
		if errno.Is(err, errno.NotFound) {
			return hash, fmt.Errorf("join: this cluster gave out no token %s: made up, withdrawn, or of another cluster", hash.String()[:12])
		}
		return hash, fmt.Errorf("join: look up token %s: %w", hash.String()[:12], err)
	}
	if err := rec.Usable(s.now(), nil); err != nil {
		return hash, fmt.Errorf("token %s: %w", hash.String()[:12], err)
	}
	return hash, nil
}

// ServeJoin holds the conversation on a connection whose token VerifyToken
// found good. It does not close conn.
func (s *JoinServer) ServeJoin(ctx context.Context, conn *tls.Conn, hash [32]byte) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // wakes a blocked read
	defer stop()
	log := s.Log.With("op", "join", "peer", conn.RemoteAddr().String(), "token", TokenHash(hash).String()[:12])

	req, reply, err := s.answer(ctx, conn, hash)
	if err != nil {
		log.Warn("join refused", "hostname", req.Hostname, "err", err)
		reply = joinReply{Kind: errno.KindOf(err), Refusal: err.Error()}
	}
	if err := writeFrame(conn, reply); err != nil {
		log.Warn("join reply lost; the joiner may repeat its request with the same key", "window", RetryWindow, "err", err)
		return
	}
	if err == nil {
		log.Info("certificate issued", "node", reply.Node, "hostname", req.Hostname, "address", req.Address)
	}
}

func (s *JoinServer) answer(ctx context.Context, conn *tls.Conn, hash TokenHash) (JoinRequest, joinReply, error) {
	body, err := readFrame(conn)
	if err != nil {
		return JoinRequest{}, joinReply{}, fmt.Errorf("read join request: %w", err)
	}
	req, err := decodeJoinRequest(body)
	if err != nil {
		return JoinRequest{}, joinReply{}, errno.New(errno.Invalid, "join", 0, "%w", err)
	}
	cs := conn.ConnectionState()
	text, err := proofText(&cs, hash)
	if err != nil {
		return req, joinReply{}, err
	}
	if !ed25519.Verify(req.PublicKey, text, req.Proof) {
		return req, joinReply{}, errno.New(errno.Permission, "join", 0, "the joiner does not hold the key it wants certified")
	}
	grant, err := s.Authority.Use(ctx, hash, req)
	if err != nil {
		return req, joinReply{}, err
	}
	cert, err := s.Issuer.Issue(grant.Node, grant.Role, req.PublicKey, s.now())
	if err != nil {
		return req, joinReply{}, err
	}
	return req, joinReply{Node: grant.Node, Certificate: cert, ClusterName: grant.ClusterName, Profile: grant.Profile, Members: grant.Members}, nil
}
