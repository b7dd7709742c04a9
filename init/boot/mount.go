package boot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// deviceTime is how long a device of /etc/fstab may take to appear: as systemd's
// x-systemd.device-timeout.
const deviceTime = 90 * time.Second

// sayTime is how long a device may take until it is said that it is waited for.
const sayTime = 500 * time.Millisecond

// mounted is one mount of proc_pid_mountinfo(5).
type mounted struct {
	dir, kind, source string
	dev               string // MAJOR:MINOR
	options           []string
}

// parseMountinfo reads proc_pid_mountinfo(5), in the order of mounting; lines it
// does not understand are left out.
func parseMountinfo(text string) []mounted {
	var list []mounted
	for line := range strings.Lines(text) {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 6 || len(r) < 2 {
			continue
		}
		m := mounted{dir: unescape(l[4]), dev: l[2], kind: r[0], source: unescape(r[1]), options: strings.Split(l[5], ",")}
		if len(r) > 2 {
			m.options = append(m.options, strings.Split(r[2], ",")...)
		}
		list = append(list, m)
	}
	return list
}

func mounts() ([]mounted, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("mounts: %w", err)
	}
	return parseMountinfo(string(b)), nil
}

// mountAt is the topmost mount on a directory.
func mountAt(dir string) (mounted, bool) {
	list, err := mounts()
	if err != nil {
		return mounted{}, false
	}
	for _, m := range slices.Backward(list) {
		if m.dir == dir {
			return m, true
		}
	}
	return mounted{}, false
}

// device waits for the device that a line of fstab(5) or root= names.
func (b *boot) device(ctx context.Context, spec string, say func(string)) (string, error) {
	slow := time.AfterFunc(sayTime, func() { say("waiting for " + spec) })
	defer slow.Stop()
	if b.o.Device != nil {
		return b.o.Device(ctx, spec, say)
	}
	path := devicePath(spec)
	if path == "" {
		return "", fmt.Errorf("%q names no device", spec)
	}
	for {
		if info, err := os.Stat(path); err == nil && info.Mode()&fs.ModeDevice != 0 {
			return path, nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return "", fmt.Errorf("device %s does not appear: %w", spec, context.Cause(ctx))
		}
	}
}

// devicePath is where the links of udev's kind lead to.
func devicePath(spec string) string {
	if filepath.IsAbs(spec) {
		return spec
	}
	name, value, ok := strings.Cut(spec, "=")
	value = strings.Trim(value, `"`)
	if !ok || value == "" || strings.Contains(value, "/") {
		return ""
	}
	switch name {
	case "UUID", "LABEL", "PARTUUID", "PARTLABEL", "ID":
		return "/dev/disk/by-" + strings.ToLower(name) + "/" + value
	}
	return ""
}

// kinds lists the types of file systems that the kernel has and that need a
// device, or those that need none.
func kinds(text string, device bool) []string {
	var list []string
	for line := range strings.Lines(text) {
		name, nodev := strings.CutPrefix(strings.TrimRight(line, "\n"), "nodev")
		if name = strings.TrimSpace(name); name != "" && nodev != device {
			list = append(list, name)
		}
	}
	return list
}

// kindOf finds the type of the file system on a device; wanted is what the
// administrator said: a type, a list, or "auto" or nothing.
func (b *boot) kindOf(device, wanted string) ([]string, error) {
	if wanted != "" && wanted != "auto" {
		return strings.Split(wanted, ","), nil
	}
	if b.o.FSType != nil {
		if kind, err := b.o.FSType(device); err == nil && kind != "" {
			return []string{kind}, nil
		}
	}
	text, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return nil, err
	}
	return kinds(string(text), true), nil
}

// load has the driver of a file system's type loaded, if the kernel lacks it: it
// cannot ask modprobe(8) where there is none. An error shows when mounting.
func (b *boot) load(ctx context.Context, kind string) {
	text, err := os.ReadFile("/proc/filesystems")
	if b.o.Load == nil || err != nil || slices.Contains(kinds(string(text), true), kind) || slices.Contains(kinds(string(text), false), kind) {
		return
	}
	if err := b.o.Load(ctx, "fs-"+kind); err != nil {
		b.log.Info("driver of a file system", "op", "load", "type", kind, "err", err)
	}
}

// mountDevice mounts a device, trying the types in turn.
func (b *boot) mountDevice(ctx context.Context, device, dir string, kinds []string, flags uintptr, data string) (kind string, err error) {
	for _, kind := range kinds {
		b.load(ctx, kind)
		err = unix.Mount(device, dir, kind, flags, data)
		switch {
		case err == nil:
			return kind, nil
		case errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES): // the device can only be read
			if rerr := unix.Mount(device, dir, kind, flags|unix.MS_RDONLY, data); rerr == nil {
				return kind, nil
			}
		case !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENODEV):
			return "", fmt.Errorf("mount %s on %s as %s: %w", device, dir, kind, err)
		}
	}
	switch {
	case len(kinds) == 0:
		return "", fmt.Errorf("mount %s on %s: this kernel has no driver for a file system on a disk", device, dir)
	case len(kinds) == 1 && errors.Is(err, unix.ENODEV):
		return "", fmt.Errorf("mount %s on %s: this kernel has no driver for %s: %w", device, dir, kinds[0], err)
	}
	return "", fmt.Errorf("mount %s on %s: there is no file system that this kernel knows (tried %s): %w", device, dir, strings.Join(kinds, " "), err)
}

// mountEntry mounts one line of fstab(5); what is mounted already is left alone.
func (b *boot) mountEntry(ctx context.Context, m Mount, say func(string)) (result string, err error) {
	if _, ok := mountAt(m.Dir); ok {
		return "", nil
	}
	if err := os.MkdirAll(m.Dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("mount %s: %w", m.Dir, err)
	}
	if helper := find(b.path, "mount."+m.Type); helper != "" || m.has("loop") || strings.HasPrefix(m.Type, "fuse") {
		return "", b.mountProgram(ctx, m)
	}
	flags, data := Flags(m.Options)
	if m.bind() {
		return "", bindMount(m, flags)
	}
	b.load(ctx, m.Type)
	text, _ := os.ReadFile("/proc/filesystems")
	source := m.Spec
	if slices.Contains(kinds(string(text), false), m.Type) || m.remote() {
		if err := unix.Mount(source, m.Dir, m.Type, flags, data); err != nil {
			return "", fmt.Errorf("mount %s on %s as %s: %w", source, m.Dir, m.Type, err)
		}
		return "", nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, deviceTime, fmt.Errorf("not there within %s", deviceTime))
	defer cancel()
	if source, err = b.device(ctx, m.Spec, say); err != nil {
		return "", err
	}
	types, err := b.kindOf(source, m.Type)
	if err != nil {
		return "", err
	}
	if m.Pass > 0 && len(types) == 1 {
		if result, err = b.check(ctx, source, types[0]); err != nil {
			return "", err
		}
	}
	_, err = b.mountDevice(ctx, source, m.Dir, types, flags, data)
	return result, err
}

// bindMount is a bind mount; its other options take a second call, see mount(2).
func bindMount(m Mount, flags uintptr) error {
	const how = unix.MS_BIND | unix.MS_REC
	if err := unix.Mount(m.Spec, m.Dir, "", flags&how, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", m.Spec, m.Dir, err)
	}
	if flags&^uintptr(how) == 0 {
		return nil
	}
	if err := unix.Mount("", m.Dir, "", flags&^unix.MS_REC|unix.MS_BIND|unix.MS_REMOUNT, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", m.Spec, m.Dir, err)
	}
	return nil
}

// mountProgram leaves to mount(8) what has a helper of its own.
func (b *boot) mountProgram(ctx context.Context, m Mount) error {
	program := find(b.path, "mount")
	if program == "" {
		return fmt.Errorf("mount %s: type %s with these options needs mount(8), which is not installed", m.Dir, m.Type)
	}
	args := []string{"-t", m.Type}
	if len(m.Options) > 0 {
		args = append(args, "-o", strings.Join(m.Options, ","))
	}
	cmd := exec.CommandContext(ctx, program, append(args, "--", m.Spec, m.Dir)...)
	cmd.WaitDelay = graceTime
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mount %s on %s: %w: %s", m.Spec, m.Dir, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// mountAll mounts the entries, each after those it needs, and goes on after an
// error. The errors of entries with nofail are warnings.
func (b *boot) mountAll(ctx context.Context, remote bool, say func(string)) (string, error) {
	b.readFstab() // the emergency shell may have changed it
	return b.mountEntries(ctx, remote, say)
}

func (b *boot) mountEntries(ctx context.Context, remote bool, say func(string)) (string, error) {
	var errs []error
	var notes []string
	n := 0
	for _, m := range Order(b.fstab) {
		if !m.wanted() || m.remote() != remote {
			continue
		}
		if _, err := b.mountEntry(ctx, m, say); err != nil {
			if m.has("nofail") {
				notes = append(notes, err.Error()+" (nofail)")
				continue
			}
			errs = append(errs, err)
			continue
		}
		n++
	}
	notes = append([]string{fmt.Sprintf("%d file systems", n)}, notes...)
	return strings.Join(notes, "; "), errors.Join(errs...)
}
