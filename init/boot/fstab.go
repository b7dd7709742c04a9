package boot

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits of fstab(5); what is beyond them is an error and not mounted.
const (
	maxFstab = 1 << 20 // bytes
	maxMount = 256     // entries
)

// Mount is one line of fstab(5).
type Mount struct {
	Spec    string // device, UUID=…, LABEL=…, or the source of a bind mount
	Dir     string // clean and absolute; "none" of a swap area
	Type    string
	Options []string
	Pass    int // of fsck; 0: never checked
	Line    int
}

// ParseFstab reads fstab(5). A line that makes no sense is an error of its own
// and the others are used.
func ParseFstab(text string) (list []Mount, errs []error) {
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		m, err := parseMount(line)
		if err == nil && len(list) == maxMount {
			err = fmt.Errorf("more than %d entries", maxMount)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("/etc/fstab:%d: %w; the line is ignored", n, err))
			if len(errs) > 10 {
				return list, errs
			}
			continue
		}
		m.Line = n
		list = append(list, m)
	}
	return list, errs
}

func parseMount(line string) (Mount, error) {
	f := strings.Fields(line)
	if len(f) < 3 {
		return Mount{}, fmt.Errorf("%d fields, at least 3 are needed: what, where, type", len(f))
	}
	m := Mount{Spec: unescape(f[0]), Dir: unescape(f[1]), Type: unescape(f[2])}
	if len(f) > 3 {
		m.Options = strings.Split(unescape(f[3]), ",")
	}
	if len(f) > 5 && !strings.HasPrefix(f[4], "#") && !strings.HasPrefix(f[5], "#") {
		pass, err := strconv.ParseUint(f[5], 10, 8)
		if err != nil {
			return Mount{}, fmt.Errorf("%q: the sixth field, the order of the check, is a small number", f[5])
		}
		m.Pass = int(pass)
	}
	if strings.ContainsRune(m.Spec+m.Dir+m.Type, 0) {
		return Mount{}, fmt.Errorf("a name has a zero byte")
	}
	if m.Type == "swap" {
		return m, nil
	}
	if !filepath.IsAbs(m.Dir) {
		return Mount{}, fmt.Errorf("%q is no absolute path", m.Dir)
	}
	m.Dir = filepath.Clean(m.Dir)
	return m, nil
}

// unescape replaces \ and three octal digits, as getmntent(3) does.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b []byte
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b = append(b, byte(c))
				i += 3
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

func (m Mount) has(option string) bool { return slices.Contains(m.Options, option) }

// value is that of option NAME=VALUE.
func (m Mount) value(name string) (string, bool) {
	for _, o := range m.Options {
		if v, ok := strings.CutPrefix(o, name+"="); ok {
			return v, true
		}
	}
	return "", false
}

// remote reports whether the network is needed.
func (m Mount) remote() bool {
	switch m.Type {
	case "nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "glusterfs", "lustre", "fuse.sshfs":
		return true
	}
	return m.has("_netdev")
}

func (m Mount) bind() bool { return m.has("bind") || m.has("rbind") }

// wanted reports whether the machine mounts it when it starts. What PID 1 has
// mounted is left alone.
func (m Mount) wanted() bool {
	switch m.Dir {
	case "/", "/proc", "/sys", "/dev", "/dev/pts", "/run", "/sys/fs/cgroup":
		return false
	}
	return m.Type != "swap" && m.Type != "ignore" && m.Dir != "none" && !m.has("noauto")
}

// needs reports whether other has to be mounted first.
func (m Mount) needs(other Mount) bool {
	return m.Dir != other.Dir && below(m.Dir, other.Dir) ||
		(m.bind() || m.has("loop")) && below(m.Spec, other.Dir) && m.Dir != other.Dir
}

func below(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// Order sorts mounts so that each comes after those it needs: those above it, and
// for a bind mount those its source is on. Otherwise the order of the file
// stays; so it does for entries that need each other.
func Order(list []Mount) []Mount {
	left := slices.Clone(list)
	ordered := make([]Mount, 0, len(left))
	for len(left) > 0 {
		next := slices.IndexFunc(left, func(m Mount) bool {
			return !slices.ContainsFunc(left, m.needs)
		})
		next = max(next, 0)
		ordered = append(ordered, left[next])
		left = slices.Delete(left, next, next+1)
	}
	return ordered
}

// mountOption is what an option of mount(8) means to mount(2).
type mountOption struct {
	name  string
	set   uintptr
	clear uintptr
}

func mountOptions() []mountOption {
	const user = unix.MS_NOEXEC | unix.MS_NOSUID | unix.MS_NODEV
	return []mountOption{
		{"defaults", 0, 0}, {"rw", 0, unix.MS_RDONLY}, {"ro", unix.MS_RDONLY, 0},
		{"suid", 0, unix.MS_NOSUID}, {"nosuid", unix.MS_NOSUID, 0},
		{"dev", 0, unix.MS_NODEV}, {"nodev", unix.MS_NODEV, 0},
		{"exec", 0, unix.MS_NOEXEC}, {"noexec", unix.MS_NOEXEC, 0},
		{"async", 0, unix.MS_SYNCHRONOUS}, {"sync", unix.MS_SYNCHRONOUS, 0}, {"dirsync", unix.MS_DIRSYNC, 0},
		{"atime", 0, unix.MS_NOATIME}, {"noatime", unix.MS_NOATIME, 0},
		{"diratime", 0, unix.MS_NODIRATIME}, {"nodiratime", unix.MS_NODIRATIME, 0},
		{"relatime", unix.MS_RELATIME, 0}, {"norelatime", 0, unix.MS_RELATIME},
		{"strictatime", unix.MS_STRICTATIME, 0}, {"nostrictatime", 0, unix.MS_STRICTATIME},
		{"lazytime", unix.MS_LAZYTIME, 0}, {"nolazytime", 0, unix.MS_LAZYTIME},
		{"nosymfollow", unix.MS_NOSYMFOLLOW, 0}, {"silent", unix.MS_SILENT, 0}, {"loud", 0, unix.MS_SILENT},
		{"bind", unix.MS_BIND, 0}, {"rbind", unix.MS_BIND | unix.MS_REC, 0},
		{"user", user, 0}, {"users", user, 0}, {"owner", unix.MS_NOSUID | unix.MS_NODEV, 0}, {"group", unix.MS_NOSUID | unix.MS_NODEV, 0},
		{"nouser", 0, 0}, {"auto", 0, 0}, {"noauto", 0, 0}, {"nofail", 0, 0}, {"_netdev", 0, 0}, {"mand", 0, 0}, {"nomand", 0, 0},
	}
}

// Flags takes options apart for mount(2): its flags, and the data for the file
// system. Options for others (x-…, X-…, comment=…, nofail and the like) are left
// out.
func Flags(options []string) (flags uintptr, data string) {
	table := mountOptions()
	var rest []string
	for _, o := range options {
		i := slices.IndexFunc(table, func(m mountOption) bool { return m.name == o })
		switch {
		case i >= 0:
			flags = flags&^table[i].clear | table[i].set
		case o == "" || strings.HasPrefix(o, "x-") || strings.HasPrefix(o, "X-") || strings.HasPrefix(o, "comment="):
		default:
			rest = append(rest, o)
		}
	}
	return flags, strings.Join(rest, ",")
}
