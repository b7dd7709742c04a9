package kmod

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Scan reads the index of a tree from its modules, as depmod does. Debian's
// cloud kernel with 1,100 modules takes some seconds, so write the result (see
// Index.Save) where it is needed again.
func Scan(dir string) (*Index, error) {
	x := newIndex(dir)
	files := map[string][]byte{}
	for _, name := range []string{builtinFile, infoFile, orderFile} {
		b, err := readBounded(filepath.Join(dir, name), MaxFile)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read the index of kernel modules: %w", err)
		}
		files[name] = b
	}
	paths, err := modulePaths(dir)
	if err != nil {
		return nil, fmt.Errorf("look for kernel modules: %w", err)
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("look for kernel modules: %s has none: is it /lib/modules/VERSION of an installed or unpacked kernel?", dir)
	}
	infos := make([]Info, len(paths))
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, p := range paths {
		group.Go(func() error {
			file := filepath.Join(dir, p)
			b, err := ReadFile(file)
			if err != nil {
				return err
			}
			if infos[i], err = ReadInfo(b); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("index kernel modules: %w; unpack the kernel's package again", err)
	}
	byName := map[string]Info{}
	for i, p := range paths {
		m := &Module{Name: fileName(p), Path: p, Deps: infos[i].Depends}
		if err := x.add(m); err != nil {
			return nil, err
		}
		if x.modules[m.Name] == m {
			byName[m.Name] = infos[i]
		}
	}
	x.finish(parseOrder(files[orderFile]))
	for _, m := range x.sorted {
		info := byName[m.Name]
		for _, a := range info.Aliases {
			if strings.ContainsAny(a, " \t") {
				continue // no word of modules.alias
			}
			x.addAlias(a, m.Name)
		}
		for _, s := range info.Soft {
			x.addSoft(m.Name, s)
		}
	}
	for _, m := range x.sorted {
		m.Deps = x.deps(m)
	}
	x.parseKernel(files)
	return x, nil
}

// modulePaths are the modules below a tree, in order. The links build and
// source are not followed.
func modulePaths(dir string) ([]string, error) {
	var paths []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if _, _, ok := splitSuffix(p); !ok || !d.Type().IsRegular() {
			return nil
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		if strings.ContainsAny(rel, " \t\n:") {
			return fmt.Errorf("%q: a module's path must not have spaces or colons", p)
		}
		if len(paths) >= MaxModules {
			return fmt.Errorf("%s has more than %d modules", dir, MaxModules)
		}
		paths = append(paths, rel)
		return nil
	})
	return paths, err
}
