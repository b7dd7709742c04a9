package boot

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"ssi/internal/sys"
)

// seedFile is the name, in the state directory, of random bytes that outlive the
// machine's power: as those of systemd-random-seed(8).
const seedFile = "random-seed"

// seedLen is how many bytes they are; fewer are not counted as random.
const seedLen = sys.MaxEntropy

// loadSeed gives the seed to the kernel. It is replaced on the disk first: one
// that could come again, after a power cut, must not be counted twice.
func (b *boot) loadSeed(context.Context, func(string)) (string, error) {
	path := filepath.Join(b.o.StateDir, seedFile)
	old, err := readSeed(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	pool, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	defer func() { _ = pool.Close() }()
	if len(old) > 0 { // mixed in, not yet counted
		if _, err := pool.Write(old); err != nil {
			return "", err
		}
	}
	if err := saveSeed(b.o.StateDir, old); err != nil {
		return "", fmt.Errorf("the random seed is not counted, since it cannot be replaced: %w", err)
	}
	if len(old) != seedLen {
		return "a new seed was made", nil
	}
	if err := sys.AddEntropy(pool, old); err != nil {
		return "", fmt.Errorf("random seed: %w", err)
	}
	return fmt.Sprintf("%d bytes credited", len(old)), nil
}

func readSeed(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, seedLen))
}

// saveSeed writes a new seed, made from the kernel's and the old one, so that
// it is no worse than that when the kernel's pool is not ready yet.
func saveSeed(stateDir string, old []byte) error {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return err
	}
	seed := make([]byte, seedLen)
	if n, err := unix.Getrandom(seed, unix.GRND_INSECURE); err != nil || n != len(seed) {
		if _, err := rand.Read(seed); err != nil {
			return err
		}
	}
	hash := sha256.Sum256(append(append([]byte(nil), old...), seed...))
	copy(seed[len(seed)-len(hash):], hash[:])
	return replaceFile(filepath.Join(stateDir, seedFile), seed, 0o600, true)
}
