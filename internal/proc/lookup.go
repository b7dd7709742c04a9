package proc

import (
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Command is what is to be executed.
type Command struct {
	Name  string   // for messages
	Files []string // what it may mean, in the order in which they are tried
	Shell bool     // a file that the kernel does not know how to execute is a script of sh(1)
}

// Command finds what s executes. dir is the working directory.
func (s *Spec) Command(dir string) Command {
	if s.Path != "" {
		return Command{Name: s.Path, Files: []string{s.Path}}
	}
	return Command{Name: s.Argv[0], Files: lookup(s.Argv[0], s.Env, dir), Shell: true}
}

// lookup returns the files that the command name may mean, in the order of
// execvp(3): those of PATH in env that exist, or name itself if it has a slash. dir is
// the working directory.
func lookup(name string, env []string, dir string) []string {
	if strings.Contains(name, "/") {
		return []string{name}
	}
	var found []string
	for _, d := range strings.Split(pathOf(env), ":") {
		if d == "" {
			d = "."
		}
		file := d + "/" + name
		at := file
		if !filepath.IsAbs(at) {
			at = dir + "/" + at
		}
		var st unix.Stat_t
		if err := unix.Stat(at, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG || err == unix.EACCES {
			found = append(found, file)
		}
	}
	return found
}

// pathOf returns the PATH of an environment, or that of the C library.
func pathOf(env []string) string {
	for _, v := range env {
		if p, ok := strings.CutPrefix(v, "PATH="); ok {
			return p
		}
	}
	return "/bin:/usr/bin"
}

// NotFound is what execvp(3) has to say of the command before it tries a file.
func (c *Command) NotFound() *Failure {
	return &Failure{Op: "exec", Path: c.Name, Errno: unix.ENOENT}
}

// Next is what execvp(3) has to say once file could not be
// executed for e, and f is what it had to say before: that nothing was found is the
// last word only if there is no better one.
func (c *Command) Next(f *Failure, file string, e unix.Errno) *Failure {
	switch e {
	case unix.ENOENT, unix.ENOTDIR: // an interpreter may be missing
		if strings.Contains(c.Name, "/") {
			return &Failure{Op: f.Op, Path: f.Path, Errno: e}
		}
		return f
	case unix.EACCES, unix.EPERM, unix.ELOOP, unix.ENAMETOOLONG:
		return &Failure{Op: "exec", Path: file, Errno: e}
	case unix.EAGAIN, unix.ENOMEM, unix.EMFILE, unix.ENFILE:
		return &Failure{Op: "fork", Path: file, Errno: e}
	}
	return &Failure{Op: "exec", Path: file, Errno: e}
}

// Final reports whether no other file is tried after f.
func (f *Failure) Final() bool {
	switch f.Errno {
	case unix.ENOENT, unix.ENOTDIR, unix.EACCES, unix.EPERM, unix.ELOOP, unix.ENAMETOOLONG:
		return false
	}
	return true
}
