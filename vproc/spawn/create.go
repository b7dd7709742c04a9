package spawn

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"ssi/internal/proc"
	"ssi/internal/sys"
)

// lookup returns the files that the command name may mean, in the order of
// execvp(3): those of PATH that exist, or name itself if it has a slash.
func lookup(name, path, dir string) []string {
	if strings.Contains(name, "/") {
		return []string{name}
	}
	var found []string
	for _, d := range strings.Split(path, ":") {
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

// create starts the command argv the way execvp(3) finds it, in dir, with attr;
// dir empty is the current directory.
func create(argv []string, dir string, attr *syscall.ProcAttr) (int, *proc.Failure) {
	here := dir
	if here == "" {
		here, _ = os.Getwd()
	}
	attr.Dir = dir
	last := &proc.Failure{Op: "exec", Path: argv[0], Errno: unix.ENOENT}
	for _, file := range lookup(argv[0], pathOf(attr.Env), here) {
		pid, err := syscall.ForkExec(file, argv, attr)
		if errors.Is(err, syscall.ENOEXEC) { // a script without a first line; execvp(3) gives it to the shell
			pid, err = syscall.ForkExec("/bin/sh", append([]string{"/bin/sh", file}, argv[1:]...), attr)
		}
		switch e := errnoOf(err); e {
		case 0:
			return pid, nil
		case unix.ENOENT, unix.ENOTDIR: // the last word only if there was no better one; an interpreter may be missing
			if strings.Contains(argv[0], "/") {
				last.Errno = e
			}
		case unix.EACCES, unix.EPERM, unix.ELOOP, unix.ENAMETOOLONG:
			last = &proc.Failure{Op: "exec", Path: file, Errno: e}
		default:
			return 0, &proc.Failure{Op: opOf(e), Path: file, Errno: e}
		}
	}
	if dir != "" && attr.Sys != nil {
		if e := enterable(dir, attr.Sys.Credential); e != 0 {
			return 0, &proc.Failure{Op: "chdir", Path: dir, Errno: e}
		}
	}
	return 0, last
}

// opOf names what fails with e other than finding the file.
func opOf(e unix.Errno) string {
	switch e {
	case unix.EAGAIN, unix.ENOMEM, unix.EMFILE, unix.ENFILE:
		return "fork"
	}
	return "exec"
}

// enterable asks the kernel whether the user may make dir the working directory.
// The error of a failed start does not tell whether chdir or exec failed.
func enterable(dir string, c *syscall.Credential) unix.Errno {
	check := func() error {
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return unix.ENOTDIR
		}
		return unix.Faccessat(unix.AT_FDCWD, dir, unix.X_OK, unix.AT_EACCESS)
	}
	var err error
	if c == nil {
		err = check()
	} else {
		err = sys.As(sys.Credentials{UID: c.Uid, GID: c.Gid, Groups: c.Groups}, check)
	}
	return errnoOf(err)
}

// errnoOf is the error number in err, 0 without one.
func errnoOf(err error) unix.Errno {
	var e unix.Errno
	_ = errors.As(err, &e)
	return e
}
