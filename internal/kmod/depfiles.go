package kmod

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// The files of an index, as depmod(8) writes them. Those of the kernel's own
// build (builtin, order) are there without depmod, too.
const (
	depFile     = "modules.dep"
	aliasFile   = "modules.alias"
	softFile    = "modules.softdep"
	builtinFile = "modules.builtin"
	infoFile    = "modules.builtin.modinfo"
	orderFile   = "modules.order"
)

// readIndex reads what depmod wrote.
func readIndex(dir string) (*Index, error) {
	x := newIndex(dir)
	files := map[string][]byte{}
	for _, name := range []string{depFile, aliasFile, softFile, builtinFile, infoFile, orderFile} {
		b, err := readBounded(filepath.Join(dir, name), MaxFile)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read the index of kernel modules: %w", err)
		}
		files[name] = b
	}
	return x, x.parse(files)
}

// parse takes the files of an index; modules.dep may be missing from it, and
// every other one.
func (x *Index) parse(files map[string][]byte) error {
	if err := x.parseDep(files[depFile]); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(x.dir, depFile), err)
	}
	x.parseKernel(files)
	for w := range words(files[aliasFile]) {
		if len(w) == 3 && w[0] == "alias" {
			x.addAlias(w[1], Name(w[2]))
		}
	}
	for w := range words(files[softFile]) {
		if len(w) > 3 && w[0] == "softdep" {
			x.addSoft(Name(w[1]), parseSoft(w[2:]))
		}
	}
	x.finish(parseOrder(files[orderFile]))
	return nil
}

// parseKernel takes what the kernel's build says of built-in modules.
func (x *Index) parseKernel(files map[string][]byte) {
	for w := range words(files[builtinFile]) {
		x.builtin[fileName(w[0])] = true
	}
	for field := range bytes.SplitSeq(files[infoFile], []byte{0}) {
		// module.key=value
		module, rest, _ := strings.Cut(string(field), ".")
		if key, value, ok := strings.Cut(rest, "="); ok && key == "alias" {
			x.builtin[Name(module)] = true
			x.addAlias(value, Name(module))
		}
	}
	for _, name := range []string{builtinFile, infoFile} {
		if files[name] != nil {
			x.raw[name] = files[name]
		}
	}
}

func (x *Index) addSoft(module string, s Soft) {
	all := x.soft[module]
	x.soft[module] = Soft{Pre: append(all.Pre, s.Pre...), Post: append(all.Post, s.Post...)}
}

// parseDep reads "kernel/a.ko: kernel/b.ko kernel/c.ko".
func (x *Index) parseDep(b []byte) error {
	entry := 0
	for w := range words(b) {
		entry++
		file, ok := strings.CutSuffix(w[0], ":")
		if !ok {
			return fmt.Errorf("entry %d: %.80q has no colon: is the file damaged? `depmod` writes it anew", entry, w[0])
		}
		m := &Module{Name: fileName(file), Path: file}
		w[0] = file
		for _, p := range w {
			if _, _, ok := splitSuffix(p); !ok || path.Clean(p) != p || strings.HasPrefix(p, "../") {
				return fmt.Errorf("entry %d: %.80q is no path of a module: is the file damaged? `depmod` writes it anew", entry, p)
			}
		}
		for _, d := range w[1:] {
			m.Deps = append(m.Deps, fileName(d))
		}
		if err := x.add(m); err != nil {
			return err
		}
	}
	return nil
}

// parseOrder maps a module's path, without compression, to its place.
func parseOrder(b []byte) map[string]int {
	order := map[string]int{}
	for w := range words(b) {
		plain, _, ok := splitSuffix(w[0])
		if !ok {
			// Before Linux 6.2 the kernel's build wrote names of objects.
			plain = strings.TrimSuffix(w[0], ".o") + ".ko"
		}
		if _, seen := order[plain]; !seen {
			order[plain] = len(order)
		}
	}
	return order
}

// words splits into the words of lines; comments and empty lines are left out. The
// words are parts of one string, and their slice is used again for the next line.
func words(b []byte) iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		var w []string
		for line := range strings.Lines(string(b)) {
			w = slices.AppendSeq(w[:0], strings.FieldsSeq(line))
			if len(w) > 0 && !strings.HasPrefix(w[0], "#") && !yield(w) {
				return
			}
		}
	}
}

func readBounded(file string, limit int) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var buf bytes.Buffer
	if info, err := f.Stat(); err == nil {
		buf.Grow(int(min(info.Size(), int64(limit))) + bytes.MinRead)
	}
	if _, err := buf.ReadFrom(io.LimitReader(f, int64(limit)+1)); err != nil {
		return nil, err
	}
	b := buf.Bytes()
	if len(b) > limit {
		return nil, fmt.Errorf("%s: more than %d bytes", file, limit)
	}
	return b, nil
}

// Save writes the index into its own tree, as depmod does, so that the next Open
// need not read every module. modules.dep is last: it makes the index valid.
func (x *Index) Save() error {
	files := x.Files(func(m *Module) (string, bool) { return m.Path, true })
	for _, name := range []string{aliasFile, softFile, depFile} {
		if err := replace(filepath.Join(x.dir, name), files[name]); err != nil {
			return fmt.Errorf("write the index of kernel modules: %w", err)
		}
	}
	return nil
}

// replace writes a file that appears complete or not at all.
func replace(file string, b []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(file), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) // fails when it was renamed
	_, err = temp.Write(b)
	if err := errors.Join(err, temp.Chmod(0o644), temp.Sync(), temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), file)
}

// Files writes an index of the modules that keep lets through, with the paths
// that it gives them: the content of each file by its name. The same modules
// give the same bytes.
func (x *Index) Files(keep func(*Module) (path string, ok bool)) map[string][]byte {
	paths := map[string]string{}
	for _, m := range x.sorted {
		if p, ok := keep(m); ok {
			paths[m.Name] = p
		}
	}
	var dep, aliases, soft, order bytes.Buffer
	for _, m := range x.sorted {
		p, ok := paths[m.Name]
		if !ok {
			continue
		}
		dep.WriteString(p + ":")
		for _, d := range x.deps(m) {
			if dp, ok := paths[d]; ok {
				dep.WriteString(" " + dp)
			}
		}
		dep.WriteByte('\n')
		plain, _, _ := splitSuffix(p)
		order.WriteString(plain + "\n")
		if s := x.soft[m.Name]; !s.empty() {
			soft.WriteString(s.line(m.Name))
		}
	}
	for _, a := range x.aliases {
		// Those of built-in modules are in modules.builtin.modinfo.
		if _, ok := paths[a.module]; ok {
			aliases.WriteString("alias " + a.pattern + " " + a.module + "\n")
		}
	}
	files := map[string][]byte{
		depFile: dep.Bytes(), aliasFile: aliases.Bytes(), softFile: soft.Bytes(), orderFile: order.Bytes(),
	}
	for name, b := range x.raw {
		files[name] = b
	}
	return files
}
