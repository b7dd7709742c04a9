package applet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// install makes a link to target, by default this program, for every command in
// dir. It either finds every name free (or ours) and makes all links, or changes
// nothing.
func install(env *Env, dir, target string, all bool) error {
	if target == "" {
		exe, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find the path of this program: %w", err)
		}
		target = exe
	}
	if filepath.Base(target) != program {
		return Usagef("--target %s: links that lead to a program of another name than %s would not be known again", target, program)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("--install: %w", err)
	}
	var names []string
	for _, name := range Links(env.table, all) {
		ours, err := linkState(filepath.Join(dir, name), target)
		if err != nil {
			return err
		}
		if !ours {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if err := replaceLink(target, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(env.Stdout, "%d new links to %s in %s\n", len(names), target, dir)
	return err
}

// Links lists the commands that are reached by a link of their name; all includes
// those of which a distribution has a program of its own.
func Links(table []Entry, all bool) []string {
	var names []string
	for _, e := range table {
		if !e.NoLink && e.Run == nil && (all || !e.Stock) {
			names = append(names, e.Name)
		}
	}
	return names
}

// linkState reports whether link leads to target already. A name that something
// else than an ssi link has is an error.
func linkState(link, target string) (ours bool, err error) {
	dest, err := os.Readlink(link)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil: // not a link
		return false, fmt.Errorf("%s is there and is not a link to %s: remove it or choose another directory; nothing was changed", link, program)
	case dest == target:
		return true, nil
	case filepath.Base(dest) == program: // of an older installation
		return false, nil
	}
	return false, fmt.Errorf("%s is a link to %s: remove it or choose another directory; nothing was changed", link, dest)
}

// replaceLink puts a link in place in one step, so that the command is never
// missing.
func replaceLink(target, link string) error {
	tmp := link + ".ssi-new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, link); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}
