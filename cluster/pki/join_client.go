package pki

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// Join is one machine's wish to join.
type Join struct {
	Token    Token
	Key      ed25519.PrivateKey // the new node's key (NewKey); keep it, to be able to retry
	Hostname string
	Wanted   id.Node // 0: any
	Address  string  // host:port where the new node will listen
	Version  string

	Dial func(ctx context.Context, addr string) (net.Conn, error) // nil: plain TCP
	Now  func() time.Time                                         // nil: time.Now
}

// Joined is what a machine has after joining: Material is to be saved, the
// rest to be used.
type Joined struct {
	Material    Material
	Who         Identity
	ClusterName string
	Profile     string // timing profile of the cluster
	Members     []Member
}

// Do asks the node at addr (host:port). It may be repeated with the same Key
// within RetryWindow if it failed on the way. Its errors say what to do.
func (j *Join) Do(ctx context.Context, addr string) (*Joined, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	if now := j.now(); now.After(j.Token.Expiry.Add(ClockTolerance)) {
		// Within the tolerance the cluster's clock decides, not this machine's.
		return nil, errno.New(errno.Timeout, "join", 0, "the token expired %s by this machine's clock (%s); make a new one: ssi cluster token", stamp(j.Token.Expiry), stamp(now))
	}
	if j.Token.Node != 0 && j.Wanted != 0 && j.Token.Node != j.Wanted {
		return nil, errno.New(errno.Invalid, "join", 0, "the token is for node number %d, not %d", j.Token.Node, j.Wanted)
	}
	dial := j.Dial
	if dial == nil {
		dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
	}
	raw, err := dial(ctx, addr)
	if err != nil {
		return nil, errno.New(errno.Unavailable, "join", 0, "cannot reach %s: %w; check the address and that a node runs there", addr, err)
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	return j.talk(ctx, raw, addr)
}

func (j *Join) now() time.Time {
	if j.Now != nil {
		return j.Now()
	}
	return time.Now()
}

func (j *Join) talk(ctx context.Context, raw net.Conn, addr string) (*Joined, error) {
	cert, err := j.Token.certificate(j.now())
	if err != nil {
		return nil, err
	}
	var ca *CA
	conn := tls.Client(raw, &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{ALPN},
		Certificates:       []tls.Certificate{cert},
		InsecureSkipVerify: true, // there are no host names: VerifyConnection checks against the pinned CA
		VerifyConnection: func(cs tls.ConnectionState) error {
			var err error
			ca, err = pinnedCA(cs.PeerCertificates, j.Token.Pin)
			if err != nil {
				return err
			}
			_, err = (&Verifier{CA: ca, Now: j.Now}).Verify(cs.PeerCertificates)
			return err
		},
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		if ca == nil && fromPeer(err) { // before it saw the token; see JoinServer.Ready
			return nil, errno.New(errno.Unavailable, "join", 0, "%s can admit nobody at the moment: its cluster is being founded, or cannot decide (the reason is in the log there); the token is still good, try again", addr)
		}
		if errors.Is(err, errPin) || ca != nil {
			return nil, errno.New(errno.Permission, "join", 0, "%s is not of the token's cluster: %w", addr, err)
		}
		return nil, errno.New(errno.Unavailable, "join", 0, "%s does not speak as a node of ssi: %w", addr, err)
	}
	reply, err := j.ask(conn)
	if err != nil {
		if fromPeer(err) {
			why := "it is used, expired or withdrawn (the reason is in the log there)"
			if now := j.now(); now.After(j.Token.Expiry) {
				why = fmt.Sprintf("it expired %s, by this machine's clock (%s)", stamp(j.Token.Expiry), stamp(now))
			}
			return nil, errno.New(errno.Permission, "join", 0, "%s refused the token: %s; make a new one: ssi cluster token", addr, why)
		}
		return nil, errno.New(errno.Unavailable, "join", 0, "connection to %s broke: %w; repeat within %v, then a new token is needed", addr, err, RetryWindow)
	}
	if reply.Refusal != "" {
		return nil, errno.New(reply.Kind, "join", 0, "%s refused: %s", addr, reply.Refusal)
	}
	return j.accept(ca, reply)
}

// fromPeer reports whether err is an alert of the other side, as crypto/tls tells
// of them.
func fromPeer(err error) bool {
	var alert *net.OpError
	return errors.As(err, &alert) && alert.Op == "remote error"
}

// ask sends the request and reads the reply. In TLS 1.3 a client learns only
// here that the server did not like its certificate.
func (j *Join) ask(conn *tls.Conn) (joinReply, error) {
	cs := conn.ConnectionState()
	text, err := proofText(&cs, j.Token.Hash())
	if err != nil {
		return joinReply{}, err
	}
	req := JoinRequest{
		PublicKey: j.Key.Public().(ed25519.PublicKey), Proof: ed25519.Sign(j.Key, text),
		Hostname: j.Hostname, Wanted: j.Wanted, Address: j.Address, Version: j.Version,
	}
	werr := writeFrame(conn, req)
	body, err := readFrame(conn) // also after a failed write: the alert says why
	if err != nil {
		return joinReply{}, errors.Join(err, werr)
	}
	var reply joinReply
	if err := json.Unmarshal(body, &reply); err != nil {
		return joinReply{}, fmt.Errorf("reply is malformed: %w", err)
	}
	return reply, nil
}

// accept checks the granted certificate with the eyes of the other nodes.
func (j *Join) accept(ca *CA, reply joinReply) (*Joined, error) {
	cert, err := x509.ParseCertificate(reply.Certificate)
	if err != nil {
		return nil, errno.New(errno.Invalid, "join", 0, "the granted certificate is damaged: %w", err)
	}
	who, err := (&Verifier{CA: ca, Now: j.Now}).Verify([]*x509.Certificate{cert})
	if err != nil {
		return nil, errno.New(errno.Invalid, "join", 0, "the granted certificate is not good: %w", err)
	}
	m := Material{CA: ca, Cert: cert, Key: j.Key}
	if err := m.check(); err != nil {
		return nil, errno.New(errno.Invalid, "join", 0, "%w", err)
	}
	return &Joined{Material: m, Who: who, ClusterName: reply.ClusterName, Profile: reply.Profile, Members: reply.Members}, nil
}

var errPin = errors.New("its CA is not the one the token names")

// pinnedCA finds the CA certificate with the pinned key in the chain.
func pinnedCA(chain []*x509.Certificate, pin [32]byte) (*CA, error) {
	for _, cert := range chain {
		ca, err := ParseCA(cert.Raw)
		if err == nil && ca.Pin() == pin {
			return ca, nil
		}
	}
	if len(chain) > 0 {
		if who, err := IdentityOf(chain[0]); err == nil {
			return nil, fmt.Errorf("%w; it says it is %v", errPin, who)
		}
	}
	return nil, errPin
}
