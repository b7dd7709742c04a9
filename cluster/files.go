package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"ssi/cluster/pki"
	"ssi/internal/id"
)

// Names in the state directory, beside those of package pki.
const (
	fileCluster  = "cluster.json"  // Identity; mode 0644
	filePeers    = "peers.json"    // the addresses known last
	fileFounding = "founding.json" // what the first leader of a new cluster writes into the registry; secret
	dirRaft      = "raft"          // the durable log of a voter
	dirAside     = "aside"         // with a time after it: the files of a cluster that was to be forgotten

	fileIncarnation = "incarnation" // in the directory that the machine forgets when it restarts
)

// Identity is what a node knows of its cluster without asking.
type Identity struct {
	ID      string  `json:"id"`
	Name    string  `json:"name"`
	Profile string  `json:"profile"`
	Node    id.Node `json:"node"`
	Addr    string  `json:"addr"` // host:port where others reach it, unless the configuration says otherwise
	Witness bool    `json:"witness,omitempty"`
}

// founding is what `ssi cluster init` leaves for the node that starts first.
type founding struct {
	CAKey  []byte                            `json:"ca_key"` // PEM
	Tokens map[pki.TokenHash]pki.TokenRecord `json:"tokens,omitempty"`
}

// String keeps the key out of messages.
func (founding) String() string   { return "founding secrets" }
func (founding) GoString() string { return "founding secrets" }

// ReadIdentity reads which cluster this machine is a node of; fs.ErrNotExist if
// of none.
func ReadIdentity(dir string) (Identity, error) {
	var ident Identity
	path := filepath.Join(dir, fileCluster)
	if err := readJSON(path, &ident); err != nil {
		return ident, err
	}
	if !ident.Node.Valid() || ident.ID == "" {
		return ident, fmt.Errorf("%s is damaged: it names no cluster and node; restore it, or join anew: ssi cluster join", path)
	}
	return ident, nil
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s is damaged: %w; restore it, or join anew: ssi cluster join", path, err)
	}
	return nil
}

// writeJSON replaces the file as a whole, and durably.
func writeJSON(path string, mode fs.FileMode, v any) (err error) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain data: cannot fail
	}
	return b
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// incarnation is the number of this life of the machine. It is kept where only a
// restart of the machine forgets it, so that a restart of the daemon is none. A
// new one is taken from the clock: larger than any before if the clock was right,
// and different in any case.
func incarnation(path string) (id.Incarnation, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		if v, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err == nil && v != 0 {
			return id.Incarnation(v), nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	inc := id.Incarnation(time.Now().UnixNano())
	return inc, saveIncarnation(path, inc)
}

func saveIncarnation(path string, inc id.Incarnation) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, fmt.Appendln(nil, uint64(inc)), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
