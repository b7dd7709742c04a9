package kmod

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	maxConf  = 1 << 20 // bytes of a file of modprobe.d
	maxConfs = 1024    // files
)

// RuleDirs are the directories of modprobe.d(5); a file in an earlier one hides
// files of the same name in later ones.
func RuleDirs() []string {
	return []string{"/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d"}
}

// Rules are what the operator says about modules: the files of modprobe.d, and
// the kernel's command line. A nil *Rules says nothing.
type Rules struct {
	params    map[string][]string // by module
	blacklist map[string]bool     // not loaded by an alias
	refused   map[string]string   // not loaded at all, and where that is said
	aliases   []alias
	soft      map[string]Soft
	warnings  []string
}

// NewRules are ssi's own, which others override: drivers that make devices
// nobody asked for do not. Sources: bonding.rst, drivers/block/{nbd,loop}.c;
// both make devices on request as well.
func NewRules() *Rules {
	return &Rules{
		params:    map[string][]string{"bonding": {"max_bonds=0"}, "nbd": {"nbds_max=0"}, "loop": {"max_loop=0"}},
		blacklist: map[string]bool{},
		refused:   map[string]string{},
		soft:      map[string]Soft{},
	}
}

// ReadRules reads the files of dirs (see RuleDirs) and the kernel's command line
// (the content of /proc/cmdline). What it does not understand is a warning.
func ReadRules(dirs []string, cmdline string) (*Rules, error) {
	r := NewRules()
	files := map[string]string{}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				return r, fmt.Errorf("read the rules for kernel modules: %w", err)
			}
			continue
		}
		for _, e := range entries {
			if _, hidden := files[e.Name()]; !hidden && strings.HasSuffix(e.Name(), ".conf") && len(files) < maxConfs {
				files[e.Name()] = filepath.Join(dir, e.Name())
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		b, err := readBounded(files[name], maxConf)
		if err != nil {
			r.warn("%v: not read", err)
			continue
		}
		r.AddFile(files[name], string(b))
	}
	r.AddCmdline(cmdline)
	return r, nil
}

// Warnings are one line each for what was not understood.
func (r *Rules) Warnings() []string {
	if r == nil {
		return nil
	}
	return slices.Clone(r.warnings)
}

func (r *Rules) warn(format string, args ...any) {
	if len(r.warnings) < 100 {
		r.warnings = append(r.warnings, fmt.Sprintf(format, args...))
	}
}

// AddFile takes the text of one file of modprobe.d; name is for messages.
func (r *Rules) AddFile(name, text string) {
	text = strings.ReplaceAll(text, "\\\n", " \x00") // a NUL for each line joined, to count lines
	n := 0
	for line := range strings.Lines(text) {
		n++
		at := fmt.Sprintf("%s:%d", name, n)
		n += strings.Count(line, "\x00")
		w := strings.Fields(strings.ReplaceAll(line, "\x00", ""))
		if len(w) == 0 || strings.HasPrefix(w[0], "#") {
			continue
		}
		if len(w) < 2 {
			r.warn("%s: %.40q without a module; ignored", at, w[0])
			continue
		}
		module := Name(w[1])
		switch w[0] {
		case "options":
			r.params[module] = append(r.params[module], w[2:]...)
		case "blacklist":
			r.blacklist[module] = true
		case "alias":
			if len(w) == 3 {
				r.aliases = append(r.aliases, alias{underscores(w[1]), Name(w[2])})
			} else {
				r.warn("%s: alias needs a pattern and a module; ignored", at)
			}
		case "softdep":
			s := parseSoft(w[2:])
			all := r.soft[module]
			r.soft[module] = Soft{Pre: append(all.Pre, s.Pre...), Post: append(all.Post, s.Post...)}
		case "install":
			// `install x /bin/false` keeps x out; other commands would have to be run.
			r.refused[module] = at + ": " + strings.Join(w, " ")
		case "remove", "weakdep":
		default:
			r.warn("%s: %.40q is not known; ignored", at, w[0])
		}
	}
}

// AddCmdline takes a kernel's command line: module.parameter=value,
// module_blacklist= (kernel-parameters.txt) and modprobe.blacklist= (modprobe(8)).
func (r *Rules) AddCmdline(cmdline string) {
	for _, w := range splitCmdline(cmdline) {
		key, value, _ := strings.Cut(w, "=")
		if key == "module_blacklist" || key == "modprobe.blacklist" {
			for m := range strings.SplitSeq(value, ",") {
				if key == "module_blacklist" {
					r.refused[Name(m)] = "the kernel's command line: " + w
				} else {
					r.blacklist[Name(m)] = true
				}
			}
			continue
		}
		module, param, ok := strings.Cut(w, ".")
		if ok && module != "" && param != "" && !strings.ContainsAny(module, "=\"") {
			module = Name(module)
			r.params[module] = append(r.params[module], param)
		}
	}
}

// splitCmdline splits at spaces outside of quotes, as lib/cmdline.c does. What
// follows -- is for init.
func splitCmdline(s string) []string {
	var all []string
	start, quoted := 0, false
	for i := range len(s) + 1 {
		if i < len(s) && s[i] == '"' {
			quoted = !quoted
		}
		if i < len(s) && (quoted || s[i] != ' ' && s[i] != '\t' && s[i] != '\n') {
			continue
		}
		if w := s[start:i]; w == "--" {
			break
		} else if w != "" {
			all = append(all, w)
		}
		start = i + 1
	}
	return all
}

// Params are the parameters of a module; of two of the same name the kernel
// takes the later one.
func (r *Rules) Params(module string) []string {
	if r == nil {
		return nil
	}
	return slices.Clone(r.params[Name(module)])
}

func (r *Rules) blacklisted(module string) bool {
	return r != nil && (r.blacklist[module] || r.refused[module] != "")
}

// refusal says where the rules keep a module out, or "".
func (r *Rules) refusal(module string) string {
	if r == nil {
		return ""
	}
	return r.refused[module]
}

// alias is what the rules' own aliases make of a name.
func (r *Rules) alias(name string) []string {
	if r == nil {
		return nil
	}
	var found []string
	for _, a := range r.aliases {
		if Match(a.pattern, underscores(name)) && !r.blacklisted(a.module) {
			found = append(found, a.module)
		}
	}
	return found
}

func (r *Rules) softOf(module string, own Soft) Soft {
	if r == nil {
		return own
	}
	s := r.soft[module]
	return Soft{Pre: slices.Concat(own.Pre, s.Pre), Post: slices.Concat(own.Post, s.Post)}
}
