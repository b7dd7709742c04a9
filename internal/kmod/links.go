package kmod

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// linkKind is a directory of /dev/disk and what its links are named after.
type linkKind struct {
	tag   string // in fstab(5)
	dir   string
	value func(Disk) string
}

var linkKinds = [...]linkKind{
	{"UUID", "by-uuid", func(d Disk) string { return d.FS.UUID }},
	{"LABEL", "by-label", func(d Disk) string { return d.FS.Label }},
	{"PARTUUID", "by-partuuid", func(d Disk) string { return d.PartUUID }},
	{"PARTLABEL", "by-partlabel", func(d Disk) string { return d.PartLabel }},
}

// Links keeps the links in /dev/disk that fstab files and mount(8) use, as udev
// would. It owns the directories by-uuid, by-label, by-partuuid and
// by-partlabel: it must not run beside udev.
type Links struct{ Disks Disks }

// Update makes the links those of the disks that are there now. It does what it
// can; the error joins what it could not.
func (l *Links) Update() error {
	disks, err := l.Disks.List()
	if err != nil {
		return err
	}
	want := planLinks(disks)
	var errs []error
	for _, kind := range linkKinds {
		errs = append(errs, update(filepath.Join(l.Disks.Dev, "disk", kind.dir), want[kind.dir]))
	}
	return errors.Join(errs...)
}

// planLinks is, for each directory, the target of each link. Of two disks with
// one name the first in order has it, so that it does not jump.
func planLinks(disks []Disk) map[string]map[string]string {
	want := map[string]map[string]string{}
	for _, kind := range linkKinds {
		links := map[string]string{}
		for _, d := range disks {
			name := escape(kind.value(d))
			if _, taken := links[name]; name != "" && !taken {
				links[name] = "../../" + d.Name
			}
		}
		want[kind.dir] = links
	}
	return want
}

// update makes the links of one directory. A link is replaced in one step.
func update(dir string, want map[string]string) error {
	if len(want) > 0 {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("link disks: %w", err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("link disks: %w", err)
	}
	var errs []error
	have := map[string]string{}
	for _, e := range entries {
		file := filepath.Join(dir, e.Name())
		if target, err := os.Readlink(file); err == nil && want[e.Name()] != "" {
			have[e.Name()] = target
		} else if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
			errs = append(errs, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if have[name] == want[name] {
			continue
		}
		// A name from escape has no dot at its start and is never this one.
		next := filepath.Join(dir, ".next")
		_ = os.Remove(next)
		if err := os.Symlink(want[name], next); err != nil {
			errs = append(errs, err)
		} else if err := os.Rename(next, filepath.Join(dir, name)); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// escape makes a label the name of a link, as udev and libblkid do: bytes that
// might be misread are \xHH. A dot at the start and names above 255 bytes are
// no links at all.
func escape(label string) string {
	var b strings.Builder
	for _, c := range label {
		switch {
		case c == utf8.RuneError:
			return ""
		case c >= 0x80, '0' <= c && c <= '9', 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', strings.ContainsRune("#+-.:=@_", c):
			b.WriteRune(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	name := b.String()
	if strings.HasPrefix(name, ".") || len(name) > 255 {
		return ""
	}
	return name
}

// unescape is the label of a link.
func unescape(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if strings.HasPrefix(name[i:], `\x`) && i+4 <= len(name) {
			if c, err := strconv.ParseUint(name[i+2:i+4], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(name[i])
	}
	return b.String()
}
