package machine

import (
	"crypto/ecdh"
	"crypto/hpke"
	"fmt"
)

// Sealing is HPKE in base mode (RFC 9180): DHKEM(X25519, HKDF-SHA256),
// HKDF-SHA256, ChaCha20-Poly1305. What is sealed is bound to the MAC and the boot
// it is for: it cannot be opened as that of another.
const (
	keySize    = 32 // bytes of a public key
	sealDomain = "ssi admission 1"
)

func sealInfo(mac MAC, boot string) []byte {
	return []byte(sealDomain + "\x00" + mac.String() + "\x00" + boot)
}

// newKey makes the key pair of one boot.
func newKey() (hpke.PrivateKey, error) { return hpke.DHKEM(ecdh.X25519()).GenerateKey() }

// seal encrypts for the key of a request.
func seal(r request, plain []byte) ([]byte, error) {
	key, err := hpke.DHKEM(ecdh.X25519()).NewPublicKey(r.Key)
	if err != nil {
		return nil, fmt.Errorf("seal for %s: %w", r.MAC, err)
	}
	sealed, err := hpke.Seal(key, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), sealInfo(r.MAC, r.Boot), plain)
	if err != nil {
		return nil, fmt.Errorf("seal for %s: %w", r.MAC, err)
	}
	return sealed, nil
}

// open decrypts what was sealed for key.
func open(key hpke.PrivateKey, mac MAC, boot string, sealed []byte) ([]byte, error) {
	plain, err := hpke.Open(key, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), sealInfo(mac, boot), sealed)
	if err != nil {
		return nil, fmt.Errorf("open the credential for %s: %w", mac, err)
	}
	return plain, nil
}
