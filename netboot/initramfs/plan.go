package initramfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"ssi/internal/kmod"
)

// plan is everything that will be in the archive.
func (c Config) plan(ctx context.Context) (tree, Result, error) {
	t := tree{}
	var r Result
	if err := t.base(c.Binary); err != nil {
		return nil, r, err
	}
	for _, d := range c.Dirs {
		if err := t.put(entry{path: d, mode: unix.S_IFDIR | 0o755}); err != nil {
			return nil, r, err
		}
	}
	if err := t.files(c.Files); err != nil {
		return nil, r, err
	}
	if err := t.programs(c.Programs, c.Root); err != nil {
		return nil, r, err
	}
	if err := t.modules(ctx, c, &r); err != nil {
		return nil, r, err
	}
	for _, l := range c.Links {
		if l.Target == "" || len(l.Target) >= maxPath || strings.ContainsRune(l.Target, 0) {
			return nil, r, fmt.Errorf("link %s: its target %.100q is empty, too long or has a NUL", l.Path, l.Target)
		}
		if err := t.put(entry{path: l.Path, mode: unix.S_IFLNK | 0o777, open: bytesOf([]byte(l.Target))}); err != nil {
			return nil, r, err
		}
	}
	return t, r, nil
}

// base is what every machine's PID 1 needs. The device numbers are those of
// Documentation/admin-guide/devices.txt.
func (t tree) base(binary string) error {
	for _, d := range []string{"bin", "dev", "etc/ssi", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "var"} {
		mode := uint32(0o755)
		switch d {
		case "root":
			mode = 0o700
		case "tmp":
			mode = 0o1777
		}
		if err := t.put(entry{path: d, mode: unix.S_IFDIR | mode}); err != nil {
			return err
		}
	}
	open, err := source(binary)
	if err != nil {
		return fmt.Errorf("the ssi program: %w", err)
	}
	return errors.Join(
		t.put(entry{path: "dev/console", mode: unix.S_IFCHR | 0o600, dev: [2]uint32{5, 1}}),
		t.put(entry{path: "dev/null", mode: unix.S_IFCHR | 0o666, dev: [2]uint32{1, 3}}),
		t.put(entry{path: programPath, mode: unix.S_IFREG | 0o755, open: open}),
		t.put(entry{path: "init", mode: unix.S_IFLNK | 0o777, open: bytesOf([]byte(programPath))}))
}

// source is a file of this machine as content; it must be there now.
func source(file string) (func() (io.ReadCloser, int64, error), error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", file)
	}
	return func() (io.ReadCloser, int64, error) {
		f, err := os.Open(file)
		if err != nil {
			return nil, 0, err
		}
		info, err := f.Stat()
		if err != nil {
			_ = f.Close()
			return nil, 0, err
		}
		return f, info.Size(), nil
	}, nil
}

func (t tree) files(files []File) error {
	for _, f := range files {
		mode := f.Mode
		if mode == 0 {
			mode = 0o644
		}
		if mode&^0o7777 != 0 {
			return fmt.Errorf("%s: mode %o has more than permissions", f.Path, mode)
		}
		open := bytesOf(f.Data)
		if f.Source != "" {
			var err error
			if open, err = source(f.Source); err != nil {
				return fmt.Errorf("%s: %w", f.Path, err)
			}
		}
		if err := t.put(entry{path: f.Path, mode: unix.S_IFREG | mode, open: open}); err != nil {
			return err
		}
	}
	return nil
}

func (t tree) programs(programs []Program, root string) error {
	if root == "" {
		root = "/"
	}
	libs := newLibraries(root)
	for _, p := range programs {
		at := p.Path
		if at == "" {
			at = p.Source
		}
		file := libs.in(p.Source)
		open, err := source(file)
		if err != nil {
			return fmt.Errorf("program %s: %w", at, err)
		}
		if err := libs.add(file, at); err != nil {
			return err
		}
		if err := t.put(entry{path: at, mode: unix.S_IFREG | 0o755, open: open}); err != nil {
			return err
		}
	}
	for at, file := range libs.found {
		clean, err := cleanPath(at)
		if err != nil {
			return err
		}
		if _, there := t[clean]; there {
			continue // the caller packs it itself
		}
		open, err := source(file)
		if err != nil {
			return err
		}
		if err := t.put(entry{path: at, mode: unix.S_IFREG | 0o755, open: open}); err != nil {
			return err
		}
	}
	return nil
}

// modules packs the modules of the classes, what they depend on, and the index
// of just those.
func (t tree) modules(ctx context.Context, c Config, r *Result) error {
	if c.Tree == "" {
		return nil
	}
	index, err := kmod.Open(c.Tree)
	if err != nil {
		return err
	}
	r.Version = index.Version()
	if c.Kernel != "" {
		k, err := KernelImage(c.Kernel)
		if err != nil {
			return err
		}
		if k.Version != r.Version {
			return fmt.Errorf("kernel %s is version %s, but the modules in %s are for %s", c.Kernel, k.Version, c.Tree, r.Version)
		}
	}
	chosen, err := c.choose(index, r)
	if err != nil {
		return err
	}
	dir := path.Join("lib/modules", r.Version)
	firmware := map[string]bool{}
	for _, m := range chosen {
		if err := ctx.Err(); err != nil {
			return err
		}
		file := index.File(m)
		if c.Firmware != "" {
			_, info, err := readModule(file, r.Version)
			if err != nil {
				return err
			}
			for _, f := range info.Firmware {
				firmware[f] = true
			}
		}
		// Read when it is written: all of them would be too much memory.
		open := func() (io.ReadCloser, int64, error) {
			b, _, err := readModule(file, r.Version)
			if err != nil {
				return nil, 0, err
			}
			return bytesOf(b)()
		}
		if err := t.put(entry{path: path.Join(dir, plainPath(m)), mode: unix.S_IFREG | 0o644, open: open}); err != nil {
			return err
		}
		r.Modules = append(r.Modules, m.Name)
	}
	slices.Sort(r.Modules)
	files := index.Files(func(m *kmod.Module) (string, bool) {
		_, ok := slices.BinarySearch(r.Modules, m.Name)
		return plainPath(m), ok
	})
	for name, b := range files {
		if err := t.put(entry{path: path.Join(dir, name), mode: unix.S_IFREG | 0o644, open: bytesOf(b)}); err != nil {
			return err
		}
	}
	return t.firmware(c.Firmware, firmware, r)
}

// readModule reads a module, uncompressed, if it is whole and for a kernel.
func readModule(file, version string) ([]byte, kmod.Info, error) {
	b, err := kmod.ReadFile(file)
	if err != nil {
		return nil, kmod.Info{}, fmt.Errorf("%w; unpack or install the kernel again", err)
	}
	info, err := kmod.ReadInfo(b)
	if err != nil {
		return nil, kmod.Info{}, fmt.Errorf("%s: %w; unpack or install the kernel again", file, err)
	}
	if v, _, _ := strings.Cut(info.VerMagic, " "); v != version {
		return nil, kmod.Info{}, fmt.Errorf("%s is made for kernel %.60q, not for %s", file, v, version)
	}
	return b, info, nil
}

// plainPath is a module's path in the tree without its compression.
func plainPath(m *kmod.Module) string {
	dir, base := path.Split(m.Path)
	base, _, _ = strings.Cut(base, ".ko")
	return dir + base + ".ko"
}

// choose finds the modules of the configuration with all they depend on.
func (c Config) choose(index *kmod.Index, r *Result) ([]*kmod.Module, error) {
	want, err := patterns(c.Classes)
	if err != nil {
		return nil, err
	}
	var chosen []*kmod.Module
	seen := map[*kmod.Module]bool{}
	for _, p := range append(want, c.Modules...) {
		found := index.Select(p)
		if len(found) == 0 && !index.Builtin(p) {
			r.Absent = append(r.Absent, p)
		}
		for _, m := range found {
			steps, err := index.Resolve(m.Name, nil)
			if err != nil {
				return nil, err
			}
			for _, s := range steps {
				if !seen[s.Module] {
					seen[s.Module] = true
					chosen = append(chosen, s.Module)
				}
			}
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("%s has none of the modules of a machine: is it whole?", c.Tree)
	}
	return chosen, nil
}

// firmware packs what there is; the rest is for devices that nobody has.
func (t tree) firmware(dir string, names map[string]bool, r *Result) error {
	if dir == "" {
		return nil
	}
	for name := range names {
		if !filepath.IsLocal(name) {
			continue
		}
		for _, end := range []string{"", ".xz", ".zst"} { // as the kernel looks: CONFIG_FW_LOADER_COMPRESS
			open, err := source(filepath.Join(dir, name+end))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return fmt.Errorf("firmware: %w", err)
			}
			if err := t.put(entry{path: path.Join("lib/firmware", name+end), mode: unix.S_IFREG | 0o644, open: open}); err != nil {
				return err
			}
			r.Firmware = append(r.Firmware, name+end)
			break
		}
	}
	slices.Sort(r.Firmware)
	return nil
}
