package ics

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"ssi/internal/id"
)

// baseTLS is what both sides share. Session tickets are off: a resumed session
// would skip the proof that the peer still has its key, and saves little.
// Hybrid post-quantum key exchange (Go's default) stays on.
func (t *Transport) baseTLS(proto string) *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		NextProtos:                  []string{proto},
		Certificates:                []tls.Certificate{*t.cfg.Credentials.Certificate()},
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: proto == protoBulk,
	}
}

// clientTLS expects node want at the other end.
func (t *Transport) clientTLS(proto string, want id.Node) *tls.Config {
	cfg := t.baseTLS(proto)
	cfg.InsecureSkipVerify = true // no host names here: VerifyConnection checks CA, cluster and number
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		got, _, err := t.cfg.Credentials.VerifyPeer(cs.PeerCertificates)
		if err == nil && got != want {
			err = fmt.Errorf("node %d answers there, not node %d: check the addresses", got, want)
		}
		return err
	}
	return cfg
}

var errNoProtocol = errors.New("offers no protocol of ssi: a port scan, or a program that took the port for another's")

// serverTLS lets in holders of a node certificate, and holders of a token for
// ssi-join; who it is, is left in *who.
func (t *Transport) serverTLS(ctx context.Context, who *accepted) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(chi *tls.ClientHelloInfo) (*tls.Config, error) {
			for _, proto := range []string{protoRaft, protoICS, protoBulk, protoJoin} {
				if !slices.Contains(chi.SupportedProtos, proto) || proto == protoJoin && t.join == nil {
					continue
				}
				if proto == protoJoin { // here, because later the other side could not tell it from a bad token
					if err := t.join.Ready(ctx); err != nil {
						return nil, fmt.Errorf("nobody can join now: %w", err)
					}
				}
				cfg := t.baseTLS(proto)
				cfg.ClientAuth = tls.RequireAnyClientCert
				cfg.VerifyConnection = func(cs tls.ConnectionState) error {
					return t.authenticate(ctx, who, proto, cs.PeerCertificates)
				}
				return cfg, nil
			}
			return nil, errNoProtocol
		},
	}
}

// accepted is what the handshake of an incoming connection found out.
type accepted struct {
	proto string
	node  id.Node
	role  string
	token [32]byte
}

func (t *Transport) authenticate(ctx context.Context, who *accepted, proto string, chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return errors.New("presents no certificate")
	}
	var err error
	who.proto = proto
	if proto == protoJoin {
		who.token, err = t.join.VerifyToken(ctx, chain[0])
		return err
	}
	who.node, who.role, err = t.cfg.Credentials.VerifyPeer(chain)
	if err == nil && who.node == t.cfg.Self {
		err = fmt.Errorf("presents a certificate of node %d, which is this node: two machines share one number", who.node)
	}
	return err
}
