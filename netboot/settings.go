package netboot

import (
	"encoding/json"
	"fmt"

	"ssi/cluster/registry"
	"ssi/internal/config"
)

// keyShared is where the init node tells the others what to serve when they
// hold init: Shared.
const keyShared = "/sys/netboot/shared"

// maxFiles is how many boot files there are.
const maxFiles = 32

// Shared is what every node needs in order to boot machines: the settings of the
// node that began it, and the boot files.
type Shared struct {
	Settings config.Netboot `json:"settings"`
	Server   string         `json:"server"` // HOST:PORT that has the files by HTTP
	Release  string         `json:"release"`
	Files    []File         `json:"files"`
}

// File is one boot file.
type File struct {
	Name string `json:"name"`
	Size int64  `json:"size"`   // bytes
	Sum  string `json:"sha256"` // hexadecimal
}

// readShared returns what the registry has, and its revision; nil if nothing yet.
func readShared(view registry.View) (*Shared, uint64, error) {
	e, err := view.Get(keyShared)
	if err != nil {
		return nil, 0, nil //nolint:nilerr // there is none: the key is valid
	}
	s := new(Shared)
	if err := json.Unmarshal(e.Value, s); err != nil {
		return nil, 0, fmt.Errorf("registry key %s is damaged: %w", e.Key, err)
	}
	if len(s.Files) > maxFiles {
		return nil, 0, fmt.Errorf("registry key %s: %d files; at most %d are allowed", e.Key, len(s.Files), maxFiles)
	}
	return s, e.Mod, nil
}
