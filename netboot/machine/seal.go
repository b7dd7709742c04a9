package machine

import (
	"crypto/ecdh"
	"crypto/hpke"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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

// FileKey is the file with the private key of this boot.
const FileKey = "admission.key"

// bootKey is the key pair of this boot: the one in dir, or a new one, which it
// keeps there. A damaged file is replaced.
func bootKey(dir string) (hpke.PrivateKey, error) {
	kem, path := hpke.DHKEM(ecdh.X25519()), filepath.Join(dir, FileKey)
	if raw, err := os.ReadFile(path); err == nil {
		if key, err := kem.NewPrivateKey(raw); err == nil {
			return key, nil
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	key, err := kem.GenerateKey()
	if err != nil {
		return nil, err
	}
	raw, err := key.Bytes()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(path+".new", raw, 0o600); err != nil {
		return nil, err
	}
	return key, os.Rename(path+".new", path)
}

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
