package ics

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"runtime"
	"time"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// Credentials are this node's certificate and its judgement on those of others.
type Credentials interface {
	// Certificate is the chain to present: the node's certificate and the CA's.
	Certificate() *tls.Certificate
	// VerifyPeer decides whether the holder of a certificate belongs to the
	// cluster and says which node it is, in which role. It must not block.
	VerifyPeer(chain []*x509.Certificate) (id.Node, string, error)
}

// JoinHandler serves machines that have no certificate yet but a token.
type JoinHandler interface {
	// Ready is why nobody can be admitted at the moment, whatever the token. It is
	// called when a handshake begins, and must end with ctx.
	Ready(ctx context.Context) error
	// VerifyToken decides during the handshake about the self-signed
	// certificate of a token's key; it returns the token's name.
	VerifyToken(ctx context.Context, cert *x509.Certificate) ([32]byte, error)
	// ServeJoin holds the conversation; the transport closes conn afterwards.
	ServeJoin(ctx context.Context, conn *tls.Conn, token [32]byte)
}

// Config is what a Transport is made of.
type Config struct {
	Self        id.Node
	Incarnation id.Incarnation // of this life of the node
	Credentials Credentials
	Log         *slog.Logger

	// Control lists what works for callers outside the membership and while
	// this node is fenced: methods ("pkg.Service/Method"), whole services
	// ("pkg.Service/") and names of bulk streams ("snapshot").
	Control []string

	// Unreachable, if set, is told that messages to a peer were dropped. It is
	// called from the goroutine that sends to that peer and must not block.
	Unreachable func(id.Node)

	// Dial connects to an address; nil: plain TCP.
	Dial func(ctx context.Context, addr string) (net.Conn, error)

	Limits Limits
}

// Limits bound what the transport holds and how long it waits. Zero fields
// mean the default.
type Limits struct {
	Handshake         time.Duration // from accept to the end of the hello; 5 s
	DialTimeout       time.Duration // connect, handshake and hello; 3 s
	CallTimeout       time.Duration // of a unary call without a deadline; 10 s
	MessageTimeout    time.Duration // until a stuck ssi-raft connection is given up; 2 s
	BackoffMax        time.Duration // longest pause between attempts to connect; 1 s
	BackoffGone       time.Duration // the same to a peer that is gone or refuses this node's certificate; 5 s
	Strangers         int           // handshakes in progress of unknown addresses; 64
	StrangersPerAddr  int           // the same, of one unknown address; 8
	HandshakesPerPeer int           // handshakes in progress of a peer's address; 128
	Joins             int           // join conversations at once; 16
	QueueMessages     int           // ssi-raft queue per peer; 4096
	QueueBytes        int           // ssi-raft queue per peer; 16 MiB
	StreamsPerPeer    int           // bulk streams per peer, each way; 256
	BulkProcs         int           // bulk streams worked on at once; GOMAXPROCS-1, at least 1
	CallsPerConn      int           // calls in progress per connection; 1024
}

const (
	// MaxMessage is the longest ssi-raft message in bytes.
	MaxMessage = 4 << 20
	// MaxBulkHeader is the longest header of a bulk stream in bytes.
	MaxBulkHeader = 64 << 10
	// MaxBulkName is the longest name of a bulk service in bytes.
	MaxBulkName = 64
	// MaxCall is the longest request or reply of a call, or item of a stream, in bytes.
	MaxCall = 16 << 20
)

func (l Limits) withDefaults() Limits {
	dur := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	num := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	dur(&l.Handshake, 5*time.Second)
	dur(&l.DialTimeout, 3*time.Second)
	dur(&l.CallTimeout, 10*time.Second)
	dur(&l.MessageTimeout, 2*time.Second)
	dur(&l.BackoffMax, time.Second)
	dur(&l.BackoffGone, 5*time.Second)
	num(&l.Strangers, 64)
	num(&l.StrangersPerAddr, 8)
	num(&l.HandshakesPerPeer, 128)
	num(&l.Joins, 16)
	num(&l.QueueMessages, 4096)
	num(&l.QueueBytes, 16<<20)
	num(&l.StreamsPerPeer, 256)
	num(&l.BulkProcs, max(1, runtime.GOMAXPROCS(0)-1))
	num(&l.CallsPerConn, 1024)
	return l
}

func (c *Config) check() error {
	switch {
	case !c.Self.Valid():
		return errno.New(errno.Invalid, "ics", 0, "node number %d is not in 1 to %d", c.Self, id.MaxNode)
	case c.Credentials == nil || c.Log == nil:
		return errors.New("ics: Config needs Credentials and Log")
	}
	return nil
}

// Peer is what the membership says of a node.
type Peer struct {
	Addr        string         // IP:port (only then has it places of its own at the gate); "" when not known
	Others      []string       // more of its addresses, the preferred first: dialled when those before do not answer
	Member      bool           // takes part in the cluster
	Gone        bool           // was declared dead or revoked: it is dialled seldom, until it is heard of
	Incarnation id.Incarnation // 0: not known, every life is taken for the same
	Cause       string         // why it is not (or no longer) a member, for messages
}

// Remote is who called or opened a stream.
type Remote struct {
	Node        id.Node
	Role        string         // of its certificate: "node" or "witness"
	Incarnation id.Incarnation // as it says
	Epoch       id.Epoch       // of its view, as it says; 0: it has none
}

// Stream is one end of a bulk stream. Reads and writes after the peer left the
// membership fail with errno.Unavailable.
type Stream interface {
	net.Conn
	// CloseWrite tells the other side that nothing more comes: it reads io.EOF.
	CloseWrite() error
}

// BulkHandler serves one bulk stream. The stream is closed when it returns; ctx
// ends when the peer leaves, this node is fenced or the transport closes.
type BulkHandler func(ctx context.Context, from Remote, header []byte, s Stream)
