package install

import (
	"cmp"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// grubScript makes the entry from the first one of Debian's own script, so that
// kernel, root device and arguments are the same whatever the root is on. It runs
// each time the menu is made, so a new kernel is taken up by itself.
const grubScript = `#!/bin/sh
# Written by "ssi install", removed by "ssi uninstall": the newest kernel with ssi
# as process 1, with the arguments of the first entry of 10_linux.
set -e
linux="${0%/*}/10_linux"
if [ ! -x "$linux" ]; then
	echo "41_ssi: $linux is missing or switched off: there is no entry for ssi" >&2
	exit 0
fi
"$linux" 2>/dev/null | awk '
n == 0 && /^[ \t]*menuentry / {
	n = 1
	print "menuentry \047ssi\047 --class gnu-linux --class os $menuentry_id_option \047ssi\047 {"
	next
}
n == 1 && /^[ \t]*linux(efi)?[ \t]/ {
	gsub(/[ \t]init=[^ \t]*/, "")
	print $0 " init=/sbin/ssi"
	next
}
n == 1 { print }
n == 1 && /^[ \t]*}/ { n = 2 }
'
`

const (
	grubEntry   = "/etc/grub.d/41_ssi"
	grubDefault = "/etc/default/grub.d/ssi.cfg"
	updateGrub  = "/usr/sbin/update-grub"
	extlinux    = "/boot/extlinux/extlinux.conf"
	argument    = "init=" + Program
)

const grubDefaultText = `# Written by "ssi install --default", removed by "ssi uninstall".
GRUB_DEFAULT=ssi
`

// bootItems are the entries for the boot loaders that are found, and what is left
// for the operator.
func bootItems(d *disk, asDefault bool) (items []item, notes []string) {
	if d.isFile("/etc/grub.d/10_linux") {
		items = append(items, item{kind: kindFile, path: grubEntry, content: []byte(grubScript), mode: 0o755, menu: true})
		if asDefault {
			items = append(items, item{kind: kindFile, path: grubDefault, content: []byte(grubDefaultText), mode: 0o644, menu: true})
		}
	}
	for _, dir := range []string{"/boot/efi/loader/entries", "/efi/loader/entries", "/boot/loader/entries"} {
		text, from := systemdBoot(d, dir)
		if text == "" {
			continue
		}
		items = append(items, item{kind: kindFile, path: dir + "/ssi.conf", content: []byte(text), mode: 0o644})
		notes = append(notes, "the entry of systemd-boot is for the kernel of "+from+": run ssi install again after a new kernel")
		if asDefault {
			notes = append(notes, "make it the default of systemd-boot with: bootctl set-default ssi.conf")
		}
		break
	}
	if t, err := d.look(extlinux); err == nil && t.kind == kindFile {
		switch text, ok := extlinuxEntry(string(t.content), asDefault); {
		case ok:
			items = append(items, item{kind: kindFile, path: extlinux, content: []byte(text), mode: t.mode, edit: true})
		case !strings.Contains(string(t.content), argument):
			notes = append(notes, extlinux+" has no entry that could be copied: add one with "+argument)
		}
	}
	if len(items) == 0 && len(notes) == 0 {
		notes = append(notes, "no boot loader was found (grub, systemd-boot, extlinux): add a second entry with the same kernel and arguments, and "+argument)
	}
	return items, notes
}

// withInit is a kernel command line with ssi as its init.
func withInit(options string) string {
	fields := slices.DeleteFunc(strings.Fields(options), func(f string) bool { return strings.HasPrefix(f, "init=") })
	return strings.Join(append(fields, argument), " ")
}

// systemdBoot makes an entry from the newest one in dir (Boot Loader
// Specification, type 1), and says which.
func systemdBoot(d *disk, dir string) (text, from string) {
	best := ""
	for _, name := range d.list(dir) {
		if !strings.HasSuffix(name, ".conf") || name == "ssi.conf" {
			continue
		}
		b, err := d.read(path.Join(dir, name))
		if err != nil || !regexp.MustCompile(`(?m)^linux[ \t]`).Match(b) {
			continue
		}
		if from == "" || compareVersions(name, from) > 0 {
			best, from = string(b), name
		}
	}
	if best == "" {
		return "", ""
	}
	var out strings.Builder
	out.WriteString("# Written by \"ssi install\", removed by \"ssi uninstall\".\n")
	options := ""
	for line := range strings.Lines(best) {
		key, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch key {
		case "title":
			out.WriteString("title ssi\n")
		case "options":
			options += " " + rest
		case "sort-key", "machine-id": // ours sorts last, and belongs to no package
		default:
			out.WriteString(strings.TrimRight(line, "\n") + "\n")
		}
	}
	out.WriteString("options " + withInit(options) + "\n")
	return out.String(), from
}

// extlinuxEntry adds an entry made from the first one (syslinux.cfg(5)); ok is
// false when there is none, or ours is there.
func extlinuxEntry(text string, asDefault bool) (changed string, ok bool) {
	if strings.Contains(text, argument) {
		return text, false
	}
	block := []string{}
	in := false
	for line := range strings.Lines(text) {
		key, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(line)), " ")
		if key == "label" {
			if in {
				break
			}
			in = true
			continue
		}
		if in {
			block = append(block, strings.TrimRight(line, "\n"))
		}
	}
	var out strings.Builder
	kernel, options := false, "" // of two appends the last counts
	for _, line := range block {
		key, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
		switch strings.ToLower(key) {
		case "linux", "kernel":
			kernel = true
			out.WriteString(line + "\n")
		case "menu":
			out.WriteString(indent + "menu label ssi\n")
		case "append":
			options = rest
		case "":
		default:
			out.WriteString(line + "\n")
		}
	}
	if !kernel {
		return text, false
	}
	out.WriteString("\tappend " + withInit(options) + "\n")
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if asDefault {
		text = regexp.MustCompile(`(?mi)^default[ \t].*$`).ReplaceAllString(text, "default ssi")
	}
	return text + "\nlabel ssi\n" + out.String(), true
}

// compareVersions compares names like 6.9.1 and 6.12.3, numbers as numbers.
func compareVersions(a, b string) int {
	split := regexp.MustCompile(`[0-9]+|[^0-9]+`)
	as, bs := split.FindAllString(a, -1), split.FindAllString(b, -1)
	for i := range min(len(as), len(bs)) {
		x, errX := strconv.Atoi(as[i])
		y, errY := strconv.Atoi(bs[i])
		c := cmp.Compare(as[i], bs[i])
		if errX == nil && errY == nil {
			c = cmp.Compare(x, y)
		}
		if c != 0 {
			return c
		}
	}
	return cmp.Compare(len(as), len(bs))
}
