package install

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"slices"
)

// Places in the root directory.
const (
	Program   = "/sbin/ssi"
	StateDir  = "/var/lib/ssi"
	LinkDir   = "/usr/local/bin"
	ManDir    = "/usr/local/share/man/man1"
	NetbootIn = "/var/lib/ssi/netboot"
	ClusterIn = "/cluster" // where ssi mounts what the nodes see of each other (vproc/procfs)

	recordFile = StateDir + "/install.json"
	savedDir   = StateDir + "/install.d"
	newState   = "/var/lib/.ssi-new" // becomes StateDir in one step, and ends as it

	maxRecord = 4 << 20
	version   = 1
)

const (
	kindFile = "file"
	kindDir  = "dir"
	kindLink = "link"
)

// record is what was done, or is about to be. It is written before each change.
type record struct {
	Version int     `json:"version"`
	Entries []entry `json:"entries"`
	// Update is set while the menu of the boot loader may not say what its files
	// say, and stays until its program has run.
	Update bool `json:"update,omitempty"`
}

// entry is one path that is ours.
type entry struct {
	Kind string `json:"kind"`
	Path string `json:"path"`
	// Ours are the hashes of what we put there: one, and during an upgrade two.
	Ours []string `json:"ours,omitempty"`
	// Before is the hash of what was there; "" nothing.
	Before string `json:"before,omitempty"`
	// Saved is where its content is kept, in savedDir; Target is that of a link.
	Saved  string      `json:"saved,omitempty"`
	Target string      `json:"target,omitempty"`
	Mode   fs.FileMode `json:"mode,omitempty"`
}

func (r *record) find(p string) *entry {
	i := slices.IndexFunc(r.Entries, func(e entry) bool { return e.Path == p })
	if i < 0 {
		return nil
	}
	return &r.Entries[i]
}

func (r *record) drop(p string) {
	r.Entries = slices.DeleteFunc(r.Entries, func(e entry) bool { return e.Path == p })
}

// readRecord reads it; nil is none.
func readRecord(d *disk) (*record, error) {
	t, err := d.look(recordFile)
	if err != nil || t.kind == "" {
		return nil, err
	}
	var r record
	switch {
	case t.kind != kindFile || len(t.content) > maxRecord:
		err = fmt.Errorf("it is no plain file of at most %d bytes", maxRecord)
	default:
		if err = json.Unmarshal(t.content, &r); err == nil {
			err = r.check()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w; without it nobody knows what to undo: restore it from a backup, or remove it to keep what is installed", recordFile, err)
	}
	return &r, nil
}

// check refuses what this program does not write: paths that are no longer ours
// would be removed.
func (r *record) check() error {
	if r.Version != version {
		return fmt.Errorf("version %d is of another ssi", r.Version)
	}
	for _, e := range r.Entries {
		if !path.IsAbs(e.Path) || path.Clean(e.Path) != e.Path || e.Path == "/" {
			return fmt.Errorf("%q is no path", e.Path)
		}
		if !slices.Contains([]string{kindFile, kindDir, kindLink}, e.Kind) {
			return fmt.Errorf("%q is no kind of entry", e.Kind)
		}
		if e.Saved != "" && path.Base(e.Saved) != e.Saved {
			return fmt.Errorf("%q is no name of a saved file", e.Saved)
		}
	}
	return nil
}

// save writes the record.
func (r *record) save(d *disk) error { return r.saveAs(d, recordFile) }

func (r *record) saveAs(d *disk, p string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return d.write(p, append(b, '\n'), 0o600)
}

// begin reads the record or starts one. The state directory appears together
// with it, so that there is no moment with a directory that nobody knows to be
// ours.
func begin(d *disk) (*record, error) {
	if err := d.removeAll(newState); err != nil {
		return nil, err
	}
	r, err := readRecord(d)
	if err != nil || r != nil {
		return r, err
	}
	r = &record{Version: version}
	if d.isDir(StateDir) {
		return r, r.save(d)
	}
	r.Entries = []entry{{Kind: kindDir, Path: StateDir}}
	if err := d.mkdir(newState, 0o700); err != nil {
		return nil, err
	}
	if err := r.saveAs(d, newState+"/"+path.Base(recordFile)); err != nil {
		return nil, err
	}
	return r, d.rename(newState, StateDir)
}
