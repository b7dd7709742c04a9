package boot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// setHostname sets the name of the machine: ssi.hostname= of the kernel command
// line, the configuration, or /etc/hostname.
func (b *boot) setHostname(context.Context, func(string)) (string, error) {
	name, ok := b.cmdline.Get("ssi.hostname")
	if !ok {
		name = b.o.Hostname
	}
	if name == "" {
		text, err := os.ReadFile("/etc/hostname")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		name = hostnameOf(string(text))
	}
	if name == "" {
		name = "localhost"
	}
	// See hostname(7).
	if len(name) > 64 || !regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`).MatchString(name) {
		return "", fmt.Errorf("%q cannot be the name of a machine: letters, digits, - and . are allowed, at most 64", name)
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return "", fmt.Errorf("set the host name %s: %w", name, err)
	}
	return name, nil
}

// hostnameOf is the name in a file like hostname(5): the first line that is no
// comment.
func hostnameOf(text string) string {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			return line
		}
	}
	return ""
}

// makeRuntime makes what programs expect in /dev and /run and the kernel does
// not: the links of fd(4), lock files' directory, the file of utmp(5).
func (b *boot) makeRuntime(context.Context, func(string)) (string, error) {
	var errs []error
	for _, link := range [][2]string{
		{"/proc/self/fd", "/dev/fd"}, {"/proc/self/fd/0", "/dev/stdin"},
		{"/proc/self/fd/1", "/dev/stdout"}, {"/proc/self/fd/2", "/dev/stderr"},
	} {
		if err := os.Symlink(link[0], link[1]); err != nil && !errors.Is(err, fs.ErrExist) {
			errs = append(errs, err)
		}
	}
	if err := os.MkdirAll("/run/lock", 0o755); err != nil {
		errs = append(errs, err)
	} else if err := os.Chmod("/run/lock", 0o1777); err != nil { // past the umask
		errs = append(errs, err)
	}
	f, err := os.OpenFile("/run/utmp", os.O_WRONLY|os.O_CREATE, 0o644)
	if err == nil {
		err = f.Close()
	}
	errs = append(errs, err)
	return "", errors.Join(errs...)
}
