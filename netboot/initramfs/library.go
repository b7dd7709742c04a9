package initramfs

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	maxLibraries = 1024
	maxLdConf    = 64 // files that /etc/ld.so.conf includes
)

// libraries finds the shared libraries that programs need, and their dynamic
// linker, as ld.so(8) would below a root directory, without running anything:
// from the path in the root to that of the file to pack.
type libraries struct {
	root  string
	dirs  []string // trusted, in order
	found map[string]string
}

func newLibraries(root string) *libraries {
	l := &libraries{root: root, found: map[string]string{}}
	l.conf("/etc/ld.so.conf", 0)
	for _, arch := range []string{"x86_64-linux-gnu", "aarch64-linux-gnu"} {
		l.dirs = append(l.dirs, "/lib/"+arch, "/usr/lib/"+arch)
	}
	l.dirs = append(l.dirs, "/lib64", "/usr/lib64", "/lib", "/usr/lib")
	return l
}

// conf reads a file of directories; mistakes in it only hide directories.
func (l *libraries) conf(file string, depth int) {
	b, err := os.ReadFile(l.in(file))
	if err != nil || depth > 4 || len(b) > 1<<20 {
		return
	}
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		w := strings.Fields(line)
		switch {
		case len(w) == 2 && w[0] == "include":
			more, _ := filepath.Glob(l.in(w[1]))
			for _, f := range more[:min(len(more), maxLdConf)] {
				if rel, err := filepath.Rel(l.root, f); err == nil {
					l.conf("/"+rel, depth+1)
				}
			}
		case len(w) == 1 && filepath.IsAbs(w[0]):
			l.dirs = append(l.dirs, filepath.Clean(w[0]))
		}
	}
}

// in is a path of the root as one of this machine.
func (l *libraries) in(path string) string { return filepath.Join(l.root, path) }

// add finds what the ELF file needs; at is where it is in the archive, for
// $ORIGIN. A file that is no ELF, as a script, needs nothing.
func (l *libraries) add(file, at string) error {
	if is, err := startsAsELF(file); err != nil || !is {
		return err
	}
	f, err := elf.Open(file)
	if err != nil {
		return fmt.Errorf("libraries of %s: %w", file, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz > 4096 {
			continue
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil {
			return fmt.Errorf("libraries of %s: %w", file, err)
		}
		name, _, _ := strings.Cut(string(b), "\x00")
		if _, known := l.found[name]; !known {
			if _, err := os.Stat(l.in(name)); err != nil {
				return fmt.Errorf("dynamic linker of %s: %w", file, err)
			}
			l.found[name] = l.in(name)
		}
	}
	needed, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("libraries of %s: %w", file, err)
	}
	var dirs []string
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		paths, _ := f.DynString(tag)
		for _, list := range paths {
			for dir := range strings.SplitSeq(list, ":") {
				dir = strings.NewReplacer("$ORIGIN", filepath.Dir(at), "${ORIGIN}", filepath.Dir(at)).Replace(dir)
				if filepath.IsAbs(dir) && !strings.Contains(dir, "$") {
					dirs = append(dirs, filepath.Clean(dir))
				}
			}
		}
	}
	dirs = append(dirs, l.dirs...)
	for _, name := range needed {
		if err := l.library(name, file, dirs, f.Machine); err != nil {
			return err
		}
	}
	return nil
}

// library finds one by its name, or by its path if it has a slash.
func (l *libraries) library(name, user string, dirs []string, machine elf.Machine) error {
	candidates := []string{filepath.Clean("/" + name)}
	if !strings.Contains(name, "/") {
		candidates = nil
		for _, d := range dirs {
			candidates = append(candidates, filepath.Join(d, name))
		}
	}
	for _, c := range candidates {
		if _, known := l.found[c]; known {
			return nil
		}
		f, err := elf.Open(l.in(c))
		if err != nil {
			continue
		}
		same := f.Machine == machine
		_ = f.Close()
		if !same {
			continue // of another architecture: ld.so passes over it, too
		}
		if len(l.found) >= maxLibraries {
			return fmt.Errorf("libraries of %s: more than %d", user, maxLibraries)
		}
		l.found[c] = l.in(c)
		return l.add(l.in(c), c)
	}
	return fmt.Errorf("libraries of %s: %s: %w; looked in %s", user, name, fs.ErrNotExist, strings.Join(slices.Compact(dirs), " "))
}

func startsAsELF(file string) (bool, error) {
	f, err := os.Open(file)
	if err != nil {
		return false, err
	}
	defer f.Close()
	magic := make([]byte, len(elf.ELFMAG))
	n, err := io.ReadFull(f, magic)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, err
	}
	return string(magic[:n]) == elf.ELFMAG, nil
}
