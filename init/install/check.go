package install

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The oldest kernel that is known to have everything (DESIGN: where it runs).
const minMajor, minMinor = 6, 12

// spare is the space that must be left on each file system that is written to, in
// bytes.
const spare = 16 << 20

// check finds what forbids an installation, before anything is changed, and what
// the operator should know.
func check(d *disk, o Options, items []item) (problems, notes []string) {
	if len(o.Binary) == 0 {
		problems = append(problems, "the program is empty")
	}
	if !d.isFile("/etc/debian_version") {
		notes = append(notes, "this is not Debian: only what is printed here was done")
	}
	if there, err := d.look("/sbin/init"); err != nil || there.kind == "" {
		notes = append(notes, "there is no /sbin/init: nothing else could boot this system")
	}
	problems = append(problems, checkKernel(d, o)...)
	if owner := packaged(d); owner != "" {
		problems = append(problems, fmt.Sprintf("%s belongs to the package %s: remove that first, or let it be the one to update ssi", Program, owner))
	}
	for _, i := range items {
		if err := conflict(d, i); err != nil {
			problems = append(problems, err.Error())
		}
	}
	return append(problems, checkSpace(d, items)...), notes
}

// checkKernel looks at the newest kernel of the root directory, which the boot
// entry starts.
func checkKernel(d *disk, o Options) (problems []string) {
	newest := ""
	for _, name := range d.list("/boot") {
		release, ok := strings.CutPrefix(name, "vmlinuz-")
		if ok && (newest == "" || compareVersions(release, newest) > 0) {
			newest = release
		}
	}
	for _, feature := range o.Missing {
		problems = append(problems, "the running kernel lacks "+feature)
	}
	switch major, minor, ok := kernelVersion(newest); {
	case newest == "":
		problems = append(problems, "there is no kernel (vmlinuz-*) in /boot: install linux-image-amd64")
	case ok && (major < minMajor || major == minMajor && minor < minMinor):
		problems = append(problems, fmt.Sprintf("the newest kernel in /boot is %s: %d.%d or newer is needed; Debian 12 has it in bookworm-backports: apt install -t bookworm-backports linux-image-amd64", newest, minMajor, minMinor))
	}
	return problems
}

func kernelVersion(release string) (major, minor int, ok bool) {
	m := regexp.MustCompile(`^([0-9]{1,4})\.([0-9]{1,4})`).FindStringSubmatch(release)
	if m == nil {
		return 0, 0, false
	}
	major, _ = strconv.Atoi(m[1]) // four digits
	minor, _ = strconv.Atoi(m[2])
	return major, minor, true
}

// packaged finds the package that the program belongs to (dpkg(1): the lists in
// /var/lib/dpkg/info).
func packaged(d *disk) string {
	const info = "/var/lib/dpkg/info"
	names := d.list(info)
	slices.Sort(names)
	for _, name := range names {
		pkg, ok := strings.CutSuffix(name, ".list")
		if !ok {
			continue
		}
		b, err := d.read(path.Join(info, name))
		if err != nil {
			continue
		}
		for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
			if line := s.Text(); line == Program || line == "/usr"+Program {
				return pkg
			}
		}
	}
	return ""
}

// conflict finds what stands where an item goes and must not be replaced.
func conflict(d *disk, i item) error {
	there, err := d.look(i.path)
	switch {
	case err != nil:
		return err
	case there.kind == "" || there.kind == i.kind && i.kind != kindLink:
		return nil
	case there.kind == kindLink && path.Base(there.target) == path.Base(Program):
		return nil
	}
	return fmt.Errorf("%s is there and is not ours: move it away", i.path)
}

// checkSpace adds up what each file system gets.
func checkSpace(d *disk, items []item) (problems []string) {
	need := map[string]uint64{}
	for _, i := range items {
		dir := path.Dir(i.path)
		for dir != "/" && !d.isDir(dir) {
			dir = path.Dir(dir)
		}
		need[dir] += uint64(len(i.content))
	}
	need["/var/lib"] += 2 * uint64(len(items[0].content)) // what is kept of an older program
	type room struct{ need, free uint64 }
	systems := map[unix.Fsid]room{}
	dirs := make([]string, 0, len(need))
	for dir := range need {
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	for _, dir := range dirs {
		var fs unix.Statfs_t
		err := d.statfs(dir, &fs)
		if err == nil && fs.Flags&unix.ST_RDONLY != 0 {
			err = unix.EROFS
		}
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s cannot be written: %v", dir, err))
			continue
		}
		r := systems[fs.Fsid]
		r.need, r.free = r.need+need[dir], fs.Bavail*uint64(fs.Bsize)
		systems[fs.Fsid] = r
		if r.free < r.need+spare {
			problems = append(problems, fmt.Sprintf("%s has %s free: %s are needed", dir, size(int(r.free)), size(int(r.need+spare))))
		}
	}
	return problems
}

// statfs asks about the file system of a directory, and whether we may write there.
func (d *disk) statfs(dir string, fs *unix.Statfs_t) error {
	f, err := d.root.Open(rel(dir))
	if err != nil {
		return err
	}
	defer f.Close()
	return errors.Join(unix.Fstatfs(int(f.Fd()), fs), unix.Faccessat(int(f.Fd()), ".", unix.W_OK, 0))
}
