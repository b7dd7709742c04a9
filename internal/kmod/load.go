package kmod

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Kernel takes modules.
type Kernel interface {
	// Insert loads the file of one module with parameters, separated by spaces.
	// That it is loaded already is unix.EEXIST.
	Insert(file, params string) error
}

// Loader loads modules. Its methods are safe for concurrent use.
type Loader struct {
	index  *Index
	rules  *Rules
	kernel Kernel

	mu   sync.Mutex
	done map[string]error // what came of each module tried: not again for each device
}

// NewLoader makes a loader. Rules may be nil; for kernel see System.
func NewLoader(x *Index, rules *Rules, kernel Kernel) *Loader {
	return &Loader{index: x, rules: rules, kernel: kernel, done: map[string]error{}}
}

// Loaded is what came of one module.
type Loaded struct {
	Module string
	For    string // the name, alias or device it was loaded for
	Err    error  // nil if it is in the kernel now
	Needed bool   // false: a soft dependency, which may be missing
	New    bool   // it was not in the kernel before
}

// Load loads the modules of a name or alias with what they need. Parameters are
// for the modules that the name stands for, not for their dependencies. What was
// tried before is tried again only if name is that of a module itself. The
// error is that of the first module needed; it is ErrUnknown if no module, not
// even a built-in one, has the name.
func (l *Loader) Load(name string, params ...string) ([]Loaded, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	steps, err := l.index.Resolve(name, l.rules)
	if err != nil {
		return nil, err
	}
	own := map[*Module]bool{}
	if len(params) > 0 {
		targets, _ := l.index.targets(name, l.rules)
		for _, m := range targets {
			own[m] = true
		}
	}
	if l.index.Module(name) != nil {
		for _, s := range steps {
			delete(l.done, s.Module.Name) // somebody may have removed it, or what it lacked
		}
	}
	var all []Loaded
	for _, s := range steps {
		var more []string
		if own[s.Module] {
			more = params
		}
		done := l.step(s, more)
		done.For = name
		all = append(all, done)
		if done.Err != nil && s.Needed && err == nil {
			err = done.Err
		}
	}
	return all, err
}

// step loads one module.
func (l *Loader) step(s Step, params []string) Loaded {
	name := s.Module.Name
	done := Loaded{Module: name, Needed: s.Needed}
	if err, tried := l.done[name]; tried {
		done.Err = err
		return done
	}
	if at := l.rules.refusal(name); at != "" {
		done.Err = fmt.Errorf("load module %s: the rules keep it out: %s", name, at)
		return done
	}
	file := l.index.File(s.Module)
	err := l.kernel.Insert(file, strings.Join(append(l.rules.Params(name), params...), " "))
	done.New = err == nil
	if err != nil && !errors.Is(err, unix.EEXIST) {
		done.Err = fmt.Errorf("load module %s (%s): %w%s", name, file, err, hint(err))
	}
	l.done[name] = done.Err
	return done
}

// hint says what an error of the kernel means: init_module(2).
func hint(err error) string {
	switch {
	case errors.Is(err, unix.ENOENT):
		return ": it uses symbols that no loaded module has; the kernel log names them"
	case errors.Is(err, unix.ENOEXEC):
		return ": it is damaged or made for another kernel"
	case errors.Is(err, unix.ENODEV):
		return ": this machine has nothing for it"
	case errors.Is(err, unix.EINVAL):
		return ": the kernel log names the wrong parameter"
	case errors.Is(err, unix.EPERM):
		return ": not root, or kernel.modules_disabled or module_blacklist is set"
	case errors.Is(err, unix.EKEYREJECTED):
		return ": the kernel takes signed modules only"
	}
	return ""
}

// System is the running kernel.
type System struct {
	sys         string
	compression string // that it undoes itself; "" if none
}

// NewSystem finds out what the kernel, as shown in sys ("/sys"), can do.
func NewSystem(sys string) *System {
	b, err := os.ReadFile(filepath.Join(sys, "module/compression"))
	if err != nil {
		return &System{sys: sys} // CONFIG_MODULE_DECOMPRESS is off
	}
	return &System{sys: sys, compression: strings.TrimSpace(string(b))}
}

// live reports whether a module is loaded: it is ready, and will not be replaced.
func (s *System) live(name string) bool {
	b, err := os.ReadFile(filepath.Join(s.sys, "module", name, "initstate"))
	return err == nil && strings.TrimSpace(string(b)) == "live"
}

// Insert is finit_module(2); modules that the kernel cannot decompress itself
// are decompressed here and given to init_module(2).
func (s *System) Insert(file, params string) error {
	_, compression, ok := splitSuffix(file)
	if !ok {
		return fmt.Errorf("%s: not a module", file)
	}
	// The kernel would say so, too, but only when it has read the file and checked
	// its signature (kernel file kernel/module/main.c, load_module).
	if s.live(fileName(file)) {
		return unix.EEXIST
	}
	if compression != "" && compression != s.compression {
		b, err := ReadFile(file)
		if err != nil {
			return err
		}
		return retry(func() error { return unix.InitModule(b, params) })
	}
	flags := 0
	if compression != "" {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	f, err := os.Open(file)
	if err != nil {
		// Not the kernel's ENOENT.
		return fmt.Errorf("open: %w", err)
	}
	defer f.Close()
	return retry(func() error { return unix.FinitModule(int(f.Fd()), params, flags) })
}

// retry does again what a signal interrupted; Go's own come often.
func retry(call func() error) error {
	for range 100 {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return unix.EINTR
}
