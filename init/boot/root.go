package boot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// NewRoot is where the root file system is mounted before PID 1 makes it the
	// root.
	NewRoot = "/root"
	// checkedFile tells that the root file system was checked before it was
	// mounted; initramfs-tools(7) leaves it, too.
	checkedFile = "/run/initramfs/fsck-root"
	// rootTime is how long the device of root= may take to appear.
	rootTime = 2 * time.Minute
)

// rootLimit is rootwait=SECONDS of the kernel command line, without a value for
// ever (admin-guide/kernel-parameters.txt), instead of rootTime.
func rootLimit(c CommandLine) time.Duration {
	v, ok := c.Get("rootwait")
	switch seconds, err := strconv.ParseUint(v, 10, 16); {
	case ok && v == "":
		return 0
	case err != nil || seconds == 0:
		return rootTime
	default:
		return time.Duration(seconds) * time.Second
	}
}

// inMemory reports whether the root is that of an initramfs.
func inMemory() bool {
	var st unix.Statfs_t
	err := unix.Statfs("/", &st)
	return err == nil && (st.Type == unix.RAMFS_MAGIC || st.Type == unix.TMPFS_MAGIC)
}

// rootSpec is the root file system to go on in; "" is the one that is there.
func rootSpec(c CommandLine) string {
	spec, _ := c.Get("root")
	switch {
	case spec == "tmpfs", spec == "none", spec == "ramfs", strings.HasPrefix(spec, "/dev/ram"):
		return ""
	}
	return spec
}

// findRoot waits for the device of root=.
func (b *boot) findRoot(ctx context.Context, say func(string)) (string, error) {
	if delay, err := strconv.ParseUint(first(b.cmdline.Get("rootdelay")), 10, 10); err == nil && delay > 0 {
		say(fmt.Sprintf("rootdelay=%d", delay))
		select {
		case <-time.After(time.Duration(delay) * time.Second):
		case <-ctx.Done():
		}
	}
	device, err := b.device(ctx, rootSpec(b.cmdline), say)
	if err != nil {
		return "", fmt.Errorf("root=%s: %w; is root= of the kernel command line right, and the disk in order?", rootSpec(b.cmdline), err)
	}
	b.root.device = device
	if err := b.probeRoot(); err != nil {
		return "", err
	}
	return device + " " + strings.Join(b.root.kinds, ","), nil
}

// probeRoot finds what types its file system may have.
func (b *boot) probeRoot() (err error) {
	b.root.kinds, err = b.kindOf(b.root.device, first(b.cmdline.Get("rootfstype")))
	return err
}

func first(s string, _ bool) string { return s }

// checkNewRoot checks the root file system before it is mounted.
func (b *boot) checkNewRoot(ctx context.Context, _ func(string)) (string, error) {
	if len(b.root.kinds) != 1 {
		return "not checked: its type is not known; rootfstype= tells it", nil
	}
	result, err := b.check(ctx, b.root.device, b.root.kinds[0])
	if err == nil && !strings.Contains(result, "not checked") {
		err = mark(checkedFile)
	}
	return result, b.orReboot(err)
}

func mark(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, nil, 0o644)
}

// orReboot has PID 1 start the machine anew if err asks for it.
func (b *boot) orReboot(err error) error {
	if !errors.Is(err, errReboot) {
		return err
	}
	if rerr := b.reboot(); rerr != nil {
		return fmt.Errorf("%w; it cannot: %w", err, rerr)
	}
	return fmt.Errorf("%w: %w", errStop, err)
}

// mountRoot mounts the root file system and has PID 1 continue there.
func (b *boot) mountRoot(ctx context.Context, _ func(string)) (string, error) {
	if err := os.MkdirAll(NewRoot, 0o700); err != nil {
		return "", err
	}
	if _, is := mountAt(NewRoot); !is {
		var options []string
		if flags, ok := b.cmdline.Get("rootflags"); ok {
			options = strings.Split(flags, ",")
		}
		flags, data := Flags(options)
		if b.cmdline.ReadOnly() {
			flags |= unix.MS_RDONLY
		}
		if len(b.root.kinds) != 1 { // the emergency shell may have repaired it
			if err := b.probeRoot(); err != nil {
				return "", err
			}
		}
		kind, err := b.mountDevice(ctx, b.root.device, NewRoot, b.root.kinds, flags, data)
		if err != nil {
			return "", fmt.Errorf("%w; is root=%s of the kernel command line right, and the disk in order? rootfstype= tells its type", err, rootSpec(b.cmdline))
		}
		b.root.kinds = []string{kind}
	}
	program, err := initOf(NewRoot, b.cmdline)
	if err != nil {
		return "", err
	}
	if err := b.o.PID1.SwitchRoot(program); err != nil {
		return "", fmt.Errorf("continue in %s: %w", b.root.device, err)
	}
	return fmt.Sprintf("%s (%s), continuing with its %s", b.root.device, strings.Join(b.root.kinds, ","), program), errStop
}

// initOf is the init program of a root file system: init= of the kernel command
// line, or the first there is, as in init/main.c of the kernel.
func initOf(root string, c CommandLine) (string, error) {
	list := []string{"/sbin/init", "/etc/init", "/bin/init"}
	if name, ok := c.Get("init"); ok && name != "" {
		list = []string{name}
	}
	for _, name := range list {
		if len(name) < 100 && filepath.IsAbs(name) && executable(root, name, 0) {
			return name, nil
		}
	}
	return "", fmt.Errorf("the root file system has no program %s: is root= right?", strings.Join(list, ", "))
}

// executable reports whether name is a program below root, following links as if
// root were /.
func executable(root, name string, depth int) bool {
	if depth > 40 { // as the kernel's limit, see path_resolution(7)
		return false
	}
	path := root
	parts := strings.Split(filepath.Clean(name), "/")
	for i, part := range parts {
		path = filepath.Join(path, part)
		info, err := os.Lstat(path)
		if err != nil {
			return false
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			if i == len(parts)-1 {
				return info.Mode().IsRegular() && info.Mode()&0o111 != 0
			}
			continue
		}
		to, err := os.Readlink(path)
		if err != nil {
			return false
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join("/", strings.Join(parts[:i], "/"), to)
		}
		return executable(root, filepath.Join(append([]string{to}, parts[i+1:]...)...), depth+1)
	}
	return false
}

// rootMount is the mount that / is.
func rootMount() (mounted, error) {
	m, ok := mountAt("/")
	if !ok {
		return m, fmt.Errorf("/proc/self/mountinfo does not tell what / is")
	}
	if m.source == "/dev/root" || !filepath.IsAbs(m.source) { // the name of what the kernel itself mounted
		if to, err := os.Readlink("/sys/dev/block/" + m.dev); err == nil {
			m.source = "/dev/" + filepath.Base(to)
		}
	}
	return m, nil
}

// checkRoot checks the root file system, which is mounted read-only.
func (b *boot) checkRoot(ctx context.Context, _ func(string)) (string, error) {
	m, err := rootMount()
	if err != nil {
		return "", err
	}
	result, err := b.check(ctx, m.source, m.kind)
	return result, b.orReboot(err)
}

// skipRootCheck says why the root file system is not checked.
func (b *boot) skipRootCheck() string {
	if inMemory() {
		return "the root is in memory"
	}
	if _, err := os.Stat(checkedFile); err == nil {
		return "checked before it was mounted"
	}
	if m, ok := mountAt("/"); ok && m.writable() {
		return "it is mounted for writing already"
	}
	for _, m := range b.fstab {
		if m.Dir == "/" && m.Pass == 0 {
			return "/etc/fstab says not to"
		}
	}
	return ""
}

// writable reports whether neither the mount nor the file system is read-only.
func (m mounted) writable() bool {
	for _, o := range m.options {
		if o == "ro" {
			return false
		}
	}
	return true
}

// remountRoot gives the root the options of its line in fstab(5): for writing,
// unless that says otherwise.
func (b *boot) remountRoot(context.Context, func(string)) (string, error) {
	options := []string{"rw"}
	for _, m := range b.fstab {
		if m.Dir == "/" && m.Type != "swap" {
			options = append(options, m.Options...)
		}
	}
	flags, data := Flags(options)
	if err := unix.Mount("", "/", "", flags|unix.MS_REMOUNT, data); err != nil {
		return "", fmt.Errorf("remount / with %s: %w", strings.Join(options, ","), err)
	}
	return strings.Join(options, ","), nil
}
