package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
)

// UndoOptions is how to uninstall.
type UndoOptions struct {
	Root   string
	DryRun bool
	Purge  bool // also the state of the cluster, with all keys: this machine is a node of it no more

	Update func(ctx context.Context) error // as in Options
	Out    io.Writer

	step func() error // see disk
}

// Uninstall undoes what Install did, the last thing first, or with DryRun prints
// what it would do. What somebody else has changed since is kept and named.
func Uninstall(ctx context.Context, o UndoOptions) error {
	root, err := os.OpenRoot(o.Root)
	if err != nil {
		return fmt.Errorf("uninstall from %s: %w", o.Root, err)
	}
	defer root.Close()
	d := &disk{root: root, step: o.step}
	release, err := d.lock()
	if err != nil {
		return fmt.Errorf("uninstall from %s: %w", o.Root, err)
	}
	defer release()
	if err := undo(ctx, d, o); err != nil {
		return fmt.Errorf("uninstall from %s: %w", o.Root, err)
	}
	return nil
}

func undo(ctx context.Context, d *disk, o UndoOptions) error {
	r, err := readRecord(d)
	if err != nil {
		return err
	}
	if !o.DryRun {
		// What an interrupted first step or last step left.
		if err := d.removeAll(newState); err != nil {
			return err
		}
	}
	if r == nil {
		_, err := fmt.Fprintf(o.Out, "nothing to undo: there is no %s\n", recordFile)
		return err
	}
	for _, e := range slices.Backward(slices.Clone(r.Entries)) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("interrupted: run it again to finish: %w", err)
		}
		if e.Path == StateDir {
			continue // last, with the record
		}
		if o.Purge && path.Dir(e.Path) == StateDir {
			continue // goes with it
		}
		if err := takeBack(d, o, r, e); err != nil {
			return fmt.Errorf("%s: %w; run it again when that is repaired", e.Path, err)
		}
	}
	if o.DryRun {
		return previewEnd(d, o, r)
	}
	if err := update(ctx, d, o.Update, o.Out, r); err != nil {
		return err
	}
	return end(d, o, r)
}

// takeBack undoes one entry and drops it from the record.
func takeBack(d *disk, o UndoOptions, r *record, e entry) error {
	there, err := d.look(e.Path)
	if err != nil {
		return err
	}
	verb, do, keep := reverse(d, e, there)
	if o.DryRun {
		if verb != "" {
			_, err = fmt.Fprintf(o.Out, "would %-7s%s\n", verb, e.Path)
		} else if keep != "" {
			_, err = fmt.Fprintf(o.Out, "would keep   %s: %s\n", e.Path, keep)
		}
		return err
	}
	if e.Kind != kindDir {
		if err := d.remove(e.Path + suffix); err != nil {
			return err
		}
	}
	if do != nil {
		if isMenu(e.Path) && !r.Update {
			r.Update = true
			if err := r.save(d); err != nil {
				return err
			}
		}
		if err := do(); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(o.Out, "%-13s%s\n", past(verb), e.Path); err != nil {
			return err
		}
	} else if keep != "" {
		if _, err := fmt.Fprintf(o.Out, "kept         %s: %s\n", e.Path, keep); err != nil {
			return err
		}
	}
	r.drop(e.Path)
	return r.save(d)
}

func isMenu(p string) bool { return p == grubEntry || p == grubDefault }

func past(verb string) string {
	if verb == "restore" {
		return "restored"
	}
	return "removed"
}

// reverse is how to undo an entry: a verb and what to do; or why to keep it; or
// neither, when it is undone already.
func reverse(d *disk, e entry, there thing) (verb string, do func() error, keep string) {
	switch {
	case there.kind == "":
		return "", nil, ""
	case e.Kind == kindDir && there.kind == kindDir:
		if n := len(d.list(e.Path)); n > 0 {
			return "", nil, fmt.Sprintf("it is not empty (%d)", n)
		}
		return "remove", func() error { return d.remove(e.Path) }, ""
	case there.hash() == e.Before:
		return "", nil, ""
	case !slices.Contains(e.Ours, there.hash()):
		return "", nil, "it was changed since"
	case e.Before == "":
		return "remove", func() error { return d.remove(e.Path) }, ""
	case e.Target != "":
		return "restore", func() error { return d.link(e.Target, e.Path) }, ""
	}
	return "restore", func() error {
		b, err := d.read(path.Join(savedDir, e.Saved))
		if err != nil {
			return fmt.Errorf("what was there before: %w", err)
		}
		return d.write(e.Path, b, e.Mode)
	}, ""
}

// isOurs reports whether a name in StateDir belongs to this package.
func isOurs(name string) bool {
	return name == path.Base(recordFile) || name == path.Base(recordFile)+suffix || name == path.Base(savedDir)
}

// stateLeft lists what else the state directory holds.
func stateLeft(d *disk) []string {
	return slices.DeleteFunc(d.list(StateDir), isOurs)
}

func previewEnd(d *disk, o UndoOptions, r *record) error {
	var err error
	if slices.ContainsFunc(r.Entries, func(e entry) bool { return isMenu(e.Path) }) || r.Update {
		_, err = fmt.Fprintln(o.Out, "would run    update-grub")
	}
	if d.isFile(clusterFile) {
		what := "keep   the state of the cluster in"
		if o.Purge {
			what = "remove the state of the cluster, with its keys, in"
		}
		_, e := fmt.Fprintf(o.Out, "would %s %s/\n", what, StateDir)
		err = errors.Join(err, e)
	}
	return err
}

// end removes the record, and the state directory if it is ours and nothing else
// is in it. The directory and the record disappear in one step. A directory that
// is ours and stays keeps a record that says only that, for a later --purge.
func end(d *disk, o UndoOptions, r *record) error {
	left := stateLeft(d)
	ours := r.find(StateDir) != nil
	if ours && (o.Purge || len(left) == 0) {
		if err := d.rename(StateDir, newState); err != nil {
			return err
		}
		if err := d.removeAll(newState); err != nil {
			return err
		}
		_, err := fmt.Fprintf(o.Out, "removed      %s/\n", StateDir)
		return err
	}
	if o.Purge {
		for _, name := range left {
			if err := d.removeAll(path.Join(StateDir, name)); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(o.Out, "emptied      %s/: it was there before\n", StateDir); err != nil {
			return err
		}
	}
	if err := d.removeAll(savedDir); err != nil {
		return err
	}
	if !ours {
		return d.remove(recordFile)
	}
	_, err := fmt.Fprintf(o.Out, "kept         %s/ with the state of the cluster: ssi uninstall --purge removes it\n", StateDir)
	return err
}
