package install

import (
	"fmt"
	"io/fs"
	"slices"
	"strconv"
)

// put makes one item as it should be: the record first, then the change.
func put(d *disk, o Options, r *record, i item) error {
	for _, dir := range missingDirs(d, parentOf(i)) {
		if err := putDir(d, o, r, dir, 0o755); err != nil {
			return err
		}
	}
	there, err := d.look(i.path)
	if err != nil {
		return err
	}
	switch decide(i, there, r.find(i.path)) {
	case actNothing:
		return nil
	case actKeep:
		_, err := fmt.Fprintf(o.Out, "kept         %s: it was changed since\n", i.path)
		return err
	}
	if i.kind == kindDir {
		return putDir(d, o, r, i.path, i.mode)
	}
	if there.kind == kindDir || there.kind == "other" {
		return fmt.Errorf("something else is there: move it away")
	}
	if err := note(d, r, i, there); err != nil {
		return err
	}
	if i.kind == kindLink {
		err = d.link(i.target, i.path)
	} else {
		err = d.write(i.path, i.content, i.mode)
	}
	if err != nil {
		return err
	}
	// An upgrade that ended well has one version again.
	if e := r.find(i.path); len(e.Ours) > 1 {
		e.Ours = []string{i.hash()}
		if err := r.save(d); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(o.Out, "wrote        %s\n", i)
	return err
}

func putDir(d *disk, o Options, r *record, dir string, mode fs.FileMode) error {
	if r.find(dir) == nil {
		r.Entries = append(r.Entries, entry{Kind: kindDir, Path: dir})
		if err := r.save(d); err != nil {
			return err
		}
	}
	if err := d.mkdir(dir, mode); err != nil {
		return err
	}
	_, err := fmt.Fprintf(o.Out, "made         %s/\n", dir)
	return err
}

// note records what an item is about to become, and keeps what it was.
func note(d *disk, r *record, i item, there thing) error {
	r.Update = r.Update || i.menu
	hash := there.hash()
	if e := r.find(i.path); e != nil {
		known := slices.Contains(e.Ours, hash) || e.Before == hash || there.kind == "" && e.Before == ""
		if known || !i.edit {
			if !slices.Contains(e.Ours, i.hash()) {
				e.Ours = append(e.Ours, i.hash())
			}
			return r.save(d)
		}
		r.drop(i.path) // somebody changed it: what is there now is what to come back to
	}
	e := entry{Kind: i.kind, Path: i.path, Ours: []string{i.hash()}}
	if there.kind != "" {
		e.Before, e.Mode, e.Target = hash, there.mode, there.target
	}
	if there.kind == kindFile {
		e.Saved = saveName(r)
		if !d.isDir(savedDir) {
			if err := d.mkdir(savedDir, 0o700); err != nil {
				return err
			}
		}
		if err := d.write(savedDir+"/"+e.Saved, there.content, 0o600); err != nil {
			return err
		}
	}
	r.Entries = append(r.Entries, e)
	return r.save(d)
}

// saveName is a name in savedDir that no entry uses.
func saveName(r *record) string {
	for n := 1; ; n++ {
		name := strconv.Itoa(n)
		if !slices.ContainsFunc(r.Entries, func(e entry) bool { return e.Saved == name }) {
			return name
		}
	}
}
