package kmod

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

const (
	// Dir is where the trees of modules are, one for each kernel version.
	Dir = "/lib/modules"
	// MaxFile is the size limit of one file of an index, in bytes; the biggest
	// of Debian 13, modules.alias, has 2 MB.
	MaxFile = 32 << 20
	// MaxModules is how many modules a tree may have; Debian's has 4,500.
	MaxModules = 65536
)

// Module is one module of a tree.
type Module struct {
	Name string   // as the kernel has it
	Path string   // in the tree: kernel/fs/fuse/fuse.ko.xz
	Deps []string // names of the modules it needs, all of them, the last to load first
	rank int      // its place in modules.order
}

// Index knows the modules of one kernel. It does not change.
type Index struct {
	dir     string
	modules map[string]*Module
	sorted  []*Module // in the order of modules.order
	builtin map[string]bool
	aliases []alias
	before  []int          // for each alias, the place of the last one with the same beginning; -1: none
	heads   map[string]int // last place in aliases, by the literal beginning of the pattern
	soft    map[string]Soft
	raw     map[string][]byte // of the kernel image, as read: modules.builtin and modules.builtin.modinfo
}

// alias says that a device or service that matches pattern is for module, which
// may be built in.
type alias struct{ pattern, module string }

// Open reads the index of a tree, for instance /lib/modules/6.12.1: depmod's
// files if they are there, else every module (see Scan).
func Open(dir string) (*Index, error) {
	_, err := os.Stat(filepath.Join(dir, "modules.dep"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Scan(dir)
	case err != nil:
		return nil, fmt.Errorf("open the index of kernel modules: %w", err)
	}
	return readIndex(dir)
}

func newIndex(dir string) *Index {
	return &Index{
		dir:     dir,
		modules: map[string]*Module{},
		builtin: map[string]bool{},
		heads:   map[string]int{},
		soft:    map[string]Soft{},
		raw:     map[string][]byte{},
	}
}

// Version is the kernel's version: the name of the tree.
func (x *Index) Version() string { return filepath.Base(x.dir) }

// Module is the module of a name, or nil.
func (x *Index) Module(name string) *Module { return x.modules[Name(name)] }

// Modules are all of them, in the order of modules.order.
func (x *Index) Modules() []*Module { return slices.Clone(x.sorted) }

// Builtin reports whether a module is a part of the kernel image.
func (x *Index) Builtin(name string) bool { return x.builtin[Name(name)] }

// File is the path of a module's file.
func (x *Index) File(m *Module) string { return filepath.Join(x.dir, m.Path) }

// add puts a module in, unless there is one of that name.
func (x *Index) add(m *Module) error {
	if len(x.modules) >= MaxModules {
		return fmt.Errorf("%s has more than %d modules", x.dir, MaxModules)
	}
	if x.modules[m.Name] == nil {
		x.modules[m.Name] = m
	}
	return nil
}

func (x *Index) addAlias(pattern, module string) {
	pattern = underscores(pattern)
	head := literal(pattern)
	before, ok := x.heads[head]
	if !ok {
		before = -1
	}
	x.heads[head] = len(x.aliases)
	x.aliases = append(x.aliases, alias{pattern, module})
	x.before = append(x.before, before)
}

// finish is to be called when everything is in.
func (x *Index) finish(order map[string]int) {
	for _, m := range x.modules {
		plain, _, _ := splitSuffix(m.Path)
		rank, ok := order[plain]
		if !ok {
			rank = len(order) // after those that the kernel's makefiles name
		}
		m.rank = rank
		x.sorted = append(x.sorted, m)
	}
	slices.SortFunc(x.sorted, func(a, b *Module) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.Path, b.Path))
	})
}

// lookup finds what a name or alias stands for: the modules, in order, and
// whether the kernel has it built in.
func (x *Index) lookup(name string) (found []*Module, builtin bool) {
	if m := x.modules[Name(name)]; m != nil {
		return []*Module{m}, false
	}
	if x.builtin[Name(name)] {
		return nil, true
	}
	name = underscores(name)
	var at []int
	for n := range len(name) + 1 {
		i, ok := x.heads[name[:n]]
		for ; ok && i >= 0; i = x.before[i] {
			if Match(x.aliases[i].pattern, name) {
				at = append(at, i)
			}
		}
	}
	slices.Sort(at)
	seen := map[string]bool{}
	for _, i := range at {
		m := x.aliases[i].module
		if x.builtin[m] {
			builtin = true
		}
		if x.modules[m] != nil && !seen[m] {
			seen[m] = true
			found = append(found, x.modules[m])
		}
	}
	return found, builtin
}
