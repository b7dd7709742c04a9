package boot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Limits of sysctl.d(5).
const (
	maxSysctlFile = 256 << 10
	maxSysctls    = 4096
)

// setting is one line of sysctl.d(5).
type setting struct {
	key   string // a path below /proc/sys, or a pattern of such
	value string
	set   bool // it has a value; without one it only keeps the key from patterns
	lax   bool // "-": a failure does not count
	where string
}

// parseSysctl reads a file of sysctl.d(5).
func parseSysctl(file, text string) (list []setting, errs []error) {
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		where := fmt.Sprintf("%s:%d", file, n)
		key, value, set := strings.Cut(line, "=")
		key, lax := strings.CutPrefix(strings.TrimSpace(key), "-")
		key = sysctlPath(strings.TrimSpace(key))
		if !fs.ValidPath(key) || key == "." || !set && !lax || len(errs) > 10 || len(list) == maxSysctls {
			errs = append(errs, fmt.Errorf("%s: %q is not KEY = VALUE; the line is ignored", where, cut(line)))
			continue
		}
		list = append(list, setting{key: key, value: strings.TrimSpace(value), set: set, lax: lax, where: where})
	}
	return list, errs
}

// sysctlPath is the path of a key: if its first separator is a dot, dots and
// slashes are swapped.
func sysctlPath(key string) string {
	i := strings.IndexAny(key, "./")
	if i < 0 || key[i] == '/' {
		return key
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, key)
}

// sysctlFiles finds the files in the order of their names; of several with one
// name the first directory's counts.
func sysctlFiles(dirs []string) []string {
	found := map[string]string{}
	for _, dir := range dirs {
		list, _ := filepath.Glob(filepath.Join(dir, "*.conf"))
		for _, file := range list {
			if name := filepath.Base(file); found[name] == "" {
				found[name] = file
			}
		}
	}
	names := make([]string, 0, len(found))
	for name := range found {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		names[i] = found[name]
	}
	return names
}

// sysctls applies sysctl.d(5), and /etc/sysctl.conf after it.
func (b *boot) sysctls(context.Context, func(string)) (string, error) {
	files := sysctlFiles([]string{"/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d"})
	return applySysctls("/proc/sys", append(files, "/etc/sysctl.conf"))
}

// applySysctls sets what the files say; of a key set twice the last counts. A
// pattern does not touch keys that are named.
func applySysctls(root string, files []string) (string, error) {
	var list []setting
	var errs []error
	for _, file := range files {
		info, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() { // a link to /dev/null masks a file
			continue
		}
		if err == nil && info.Size() > maxSysctlFile {
			err = fmt.Errorf("%s: more than %d bytes; the file is ignored", file, maxSysctlFile)
		}
		var text []byte
		if err == nil {
			text, err = os.ReadFile(file)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		l, e := parseSysctl(file, string(text))
		list, errs = append(list, l...), append(errs, e...)
	}
	named := map[string]bool{}
	for _, s := range list {
		if !pattern(s.key) {
			named[s.key] = true
		}
	}
	n := 0
	for _, s := range list {
		if !s.set {
			continue
		}
		keys := []string{filepath.Join(root, s.key)}
		if pattern(s.key) {
			keys, _ = filepath.Glob(keys[0])
			keys = slices.DeleteFunc(keys, func(k string) bool { return named[strings.TrimPrefix(k, root+"/")] })
		}
		for _, key := range keys {
			if err := os.WriteFile(key, []byte(s.value), 0); err == nil {
				n++
			} else if !s.lax && !errors.Is(err, fs.ErrNotExist) { // a key of what this kernel lacks
				errs = append(errs, fmt.Errorf("%s: %w", s.where, err))
			}
		}
	}
	return fmt.Sprintf("%d settings", n), errors.Join(errs...)
}

func pattern(key string) bool {
	_, err := path.Match(key, "")
	return err == nil && strings.ContainsAny(key, "*?[")
}
