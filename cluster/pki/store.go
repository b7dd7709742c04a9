package pki

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
)

// Names of the files in the state directory (/var/lib/ssi).
const (
	FileCA      = "ca.crt"
	FileCAKey   = "ca.key"
	FileCert    = "node.crt"
	FileKey     = "node.key"
	FilePending = "joining.key" // of a join that has not succeeded yet
	maxPEMFile  = 64 << 10
)

// Material is what a node needs to prove who it is.
type Material struct {
	CA   *CA
	Cert *x509.Certificate
	Key  ed25519.PrivateKey
}

// String names it; like its relatives below it keeps the key out of messages.
func (m Material) String() string { return "key and certificate of " + m.Cert.Subject.CommonName }

// GoString is String.
func (m Material) GoString() string { return m.String() }

// LogValue is String.
func (m Material) LogValue() slog.Value { return slog.StringValue(m.String()) }

// Format is String, whatever the verb.
func (m Material) Format(s fmt.State, _ rune) { fmt.Fprint(s, m.String()) }

// check reports whether key and certificate belong together and the CA signed.
func (m Material) check() error {
	pub, ok := m.Cert.PublicKey.(ed25519.PublicKey)
	if !ok || !bytes.Equal(pub, m.Key.Public().(ed25519.PublicKey)) {
		return errors.New("the node's key and certificate do not belong together")
	}
	if err := m.Cert.CheckSignatureFrom(m.CA.Cert); err != nil {
		return fmt.Errorf("the node's certificate is not of the CA beside it: %w", err)
	}
	return nil
}

// TLS is the certificate chain to present: the node's and the CA's, which a
// joiner needs to find what its token pins.
func (m Material) TLS() *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{m.Cert.Raw, m.CA.Cert.Raw}, PrivateKey: m.Key, Leaf: m.Cert}
}

// Save writes ca.crt, node.crt and node.key into dir, the key last: who finds
// a key finds a complete set.
func (m Material) Save(dir string) error {
	key, err := marshalKey(m.Key)
	if err != nil {
		return err
	}
	if err := makeDir(dir); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, FileCA), certPEM(m.CA.Cert.Raw)); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, FileCert), certPEM(m.Cert.Raw)); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, FileKey), key); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, FilePending)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// PendingKey is the key to join with: that of an earlier try which was cut off,
// so that its token can be used again (RetryWindow), or a new one, which it
// keeps in dir until Save.
func PendingKey(dir string) (ed25519.PrivateKey, error) {
	path := filepath.Join(dir, FilePending)
	text, err := readSecret(path)
	if err == nil {
		return parseKey(text)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	if text, err = marshalKey(key); err != nil {
		return nil, err
	}
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	return key, writeFile(path, text)
}

// Load reads what Save wrote. If the node never joined, the error is
// fs.ErrNotExist (node.key is missing).
func Load(dir string) (Material, error) {
	keyText, err := readSecret(filepath.Join(dir, FileKey))
	if err != nil {
		return Material{}, err
	}
	key, err := parseKey(keyText)
	if err != nil {
		return Material{}, fmt.Errorf("%s: %w", filepath.Join(dir, FileKey), err)
	}
	ca, err := LoadCA(dir)
	if err != nil {
		return Material{}, err
	}
	path := filepath.Join(dir, FileCert)
	der, err := readCert(path)
	if err != nil {
		return Material{}, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return Material{}, fmt.Errorf("%s is damaged: %w; restore it or join anew", path, err)
	}
	m := Material{CA: ca, Cert: cert, Key: key}
	if err := m.check(); err != nil {
		return Material{}, fmt.Errorf("%s: %w; restore the files or join anew", dir, err)
	}
	return m, nil
}

// LoadCA reads ca.crt.
func LoadCA(dir string) (*CA, error) {
	path := filepath.Join(dir, FileCA)
	der, err := readCert(path)
	if err != nil {
		return nil, err
	}
	ca, err := ParseCA(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return ca, nil
}

// SaveCAKey writes ca.crt and ca.key into dir.
func (k *CAKey) SaveCAKey(dir string) error {
	text, err := k.MarshalKey()
	if err != nil {
		return err
	}
	if err := makeDir(dir); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, FileCA), certPEM(k.Cert.Raw)); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, FileCAKey), text)
}

// LoadCAKey reads ca.crt and ca.key; fs.ErrNotExist if this node has no CA key.
func LoadCAKey(dir string) (*CAKey, error) {
	path := filepath.Join(dir, FileCAKey)
	text, err := readSecret(path)
	if err != nil {
		return nil, err
	}
	ca, err := LoadCA(dir)
	if err != nil {
		return nil, err
	}
	key, err := NewCAKey(ca, text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func readCert(path string) ([]byte, error) {
	text, err := readLimited(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s is damaged: no PEM block CERTIFICATE; restore it or join anew", path)
	}
	return block.Bytes, nil
}

// readSecret reads a file only if nobody but its owner can.
func readSecret(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others (mode %04o): chmod 600 it, and join anew if someone may have read it", path, mode)
	}
	return readLimited(path)
}

func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPEMFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxPEMFile {
		return nil, fmt.Errorf("%s is damaged: larger than %d bytes", path, maxPEMFile)
	}
	return text, nil
}

func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create state directory: %w", err)
	}
	return nil
}

// writeFile replaces path as a whole: after a power cut there is the old or
// the new file, never half of one.
func writeFile(path string, text []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			if rm := os.Remove(f.Name()); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
				err = errors.Join(err, rm)
			}
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if _, err = f.Write(text); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
