package pki

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"time"

	"ssi/internal/id"
)

const (
	tokenPrefix  = "ssi1-"
	tokenVersion = 1
	tokenBody    = 1 + 32 + ed25519.SeedSize + 8 + 2 + 1
	tokenSum     = 4
	maxTokenText = 256
)

// What is wrong with a token string. The errors of ParseToken wrap one.
var (
	ErrNotToken      = errors.New("not a join token")
	ErrTokenMistyped = errors.New("join token is damaged or mistyped")
	ErrTokenVersion  = errors.New("join token is of a newer version of ssi")
)

// Token lets one machine join one cluster once. It is a secret.
type Token struct {
	Pin    [32]byte  // hash of the CA it joins to, see CA.Pin
	Expiry time.Time // whole seconds
	Node   id.Node   // the number it is good for; 0: any free one
	Role   Role
	seed   [ed25519.SeedSize]byte
}

// TokenHash names a token without giving it away: SHA-256 of the public key
// (SubjectPublicKeyInfo) that its seed derives.
type TokenHash [32]byte

func (h TokenHash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText and UnmarshalText make a TokenHash a JSON string or map key.
func (h TokenHash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (h *TokenHash) UnmarshalText(text []byte) error {
	raw, err := hex.DecodeString(string(text))
	if err != nil || len(raw) != len(h) {
		return errors.New("not a token hash")
	}
	copy(h[:], raw)
	return nil
}

// NewToken makes a token for the cluster of ca. node 0 means any number.
func NewToken(ca *CA, node id.Node, role Role, expiry time.Time) (Token, error) {
	t := Token{Pin: ca.Pin(), Expiry: time.Unix(expiry.Unix(), 0), Node: node, Role: role}
	if node > id.MaxNode || !role.Valid() {
		return Token{}, fmt.Errorf("create token: bad node %d or role %q", node, role)
	}
	if _, err := rand.Read(t.seed[:]); err != nil {
		return Token{}, fmt.Errorf("create token: %w", err)
	}
	return t, nil
}

// Secret is the token as text: what the operator carries to the new machine.
func (t Token) Secret() string {
	b := make([]byte, 0, tokenBody+tokenSum)
	b = append(b, tokenVersion)
	b = append(b, t.Pin[:]...)
	b = append(b, t.seed[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(t.Expiry.Unix()))
	b = binary.BigEndian.AppendUint16(b, uint16(t.Node))
	b = append(b, roleByte(t.Role))
	sum := sha256.Sum256(b)
	b = append(b, sum[:tokenSum]...)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// ParseToken reads what Secret wrote; surrounding white space is ignored. It
// does not look at the expiry.
func ParseToken(text string) (Token, error) {
	text = strings.TrimSpace(text)
	body, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok || len(text) > maxTokenText {
		return Token{}, fmt.Errorf("%w: it starts with %s", ErrNotToken, tokenPrefix)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil || len(b) < 1+tokenSum {
		return Token{}, fmt.Errorf("%w: copy it again, whole", ErrTokenMistyped)
	}
	sum := sha256.Sum256(b[:len(b)-tokenSum])
	if string(sum[:tokenSum]) != string(b[len(b)-tokenSum:]) {
		return Token{}, fmt.Errorf("%w: its checksum does not fit; copy it again, whole", ErrTokenMistyped)
	}
	if b[0] != tokenVersion {
		return Token{}, fmt.Errorf("%w: token version %d, this is %d; update ssi here", ErrTokenVersion, b[0], tokenVersion)
	}
	if len(b) != tokenBody+tokenSum {
		return Token{}, fmt.Errorf("%w: wrong length", ErrTokenMistyped)
	}
	var t Token
	b = b[1:]
	b = b[copy(t.Pin[:], b):]
	b = b[copy(t.seed[:], b):]
	t.Expiry = time.Unix(int64(binary.BigEndian.Uint64(b)), 0)
	t.Node = id.Node(binary.BigEndian.Uint16(b[8:]))
	t.Role, ok = roleOf(b[10])
	if !ok || t.Node > id.MaxNode {
		return Token{}, fmt.Errorf("%w: unknown role or node number", ErrTokenMistyped)
	}
	return t, nil
}

func roleByte(r Role) byte {
	if r == RoleWitness {
		return 2
	}
	return 1
}

func roleOf(b byte) (Role, bool) {
	switch b {
	case 1:
		return RoleNode, true
	case 2:
		return RoleWitness, true
	}
	return "", false
}

// String names it; like its relatives below it keeps the secret out of messages.
func (t Token) String() string { return "join token " + t.Hash().String()[:12] }

// GoString is String.
func (t Token) GoString() string { return t.String() }

// LogValue is String.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// Format is String, whatever the verb.
func (t Token) Format(s fmt.State, _ rune) { fmt.Fprint(s, t.String()) }

func (t Token) key() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(t.seed[:]) }

// Hash is the name under which the cluster keeps this token.
func (t Token) Hash() TokenHash {
	spki, err := x509.MarshalPKIXPublicKey(t.key().Public())
	if err != nil {
		panic("pki: ed25519 public key cannot be encoded: " + err.Error()) // no input reaches this
	}
	return sha256.Sum256(spki)
}

// certificate is the self-signed certificate by which the joiner shows in the
// handshake that it holds the token.
func (t Token) certificate(now time.Time) (tls.Certificate, error) {
	key := t.key()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "ssi join"},
		NotBefore:    now.Add(-ClockTolerance),
		NotAfter:     now.Add(ClockTolerance),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("create join certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
