package netboot

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"sync"

	"ssi/netboot/loader"
)

// known is what is known of the boot files here, so that a new init need not read
// and unpack them once more before it serves.
type known struct {
	mu      sync.Mutex
	sums    map[string][sha256.Size]byte // of those that the cluster checked
	entries map[string]loader.Entry      // of those that are here
}

// expect takes the sums from the list of the cluster: the node that wrote it has
// checked the files.
func (k *known) expect(shared *Shared) {
	sums := map[string][sha256.Size]byte{}
	for _, f := range shared.Files {
		if sum, ok := f.sum(); ok {
			sums[f.Name] = sum
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sums = sums
}

func (f File) sum() (sum [sha256.Size]byte, ok bool) {
	b, err := hex.DecodeString(f.Sum)
	return sum, err == nil && copy(sum[:], b) == len(b) && len(b) == len(sum)
}

func (k *known) get(name string) (e loader.Entry, sum [sha256.Size]byte, listed bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	sum, listed = k.sums[name]
	return k.entries[name], sum, listed
}

func (k *known) put(name string, e loader.Entry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.entries == nil {
		k.entries = map[string]loader.Entry{}
	}
	k.entries[name] = e
}

// has reports whether a file of the list of the cluster is here.
func (s *stock) has(f File) bool {
	sum, ok := f.sum()
	if !ok {
		return false
	}
	e, _, _ := s.known.get(f.Name)
	if e.Sum() == sum && e.Fresh() {
		return true
	}
	e, err := loader.Known(s.path(f.Name), sum)
	if err == nil {
		s.known.put(f.Name, e)
	}
	return err == nil
}

// entry is a boot file: as it is known, or as the cluster checked it, or, if it is
// another one, checked now.
func (s *stock) entry(name string, check loader.Check) (loader.Entry, error) {
	e, sum, listed := s.known.get(name)
	if e.Fresh() {
		return e, nil
	}
	err := loader.ErrChanged
	if listed {
		e, err = loader.Known(s.path(name), sum)
	}
	if err != nil {
		e, err = loader.File(s.path(name), check)
	}
	if err == nil {
		s.known.put(name, e)
	}
	return e, err
}

// ukiCheck looks at the parts of an image only from the outside: they were checked
// before it was made of them.
func ukiCheck(r io.ReaderAt, size int64) error {
	_, err := loader.ReadUKI(r, size, loader.UEFIx64)
	return err
}
