package spawn

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"ssi/internal/proc"
	"ssi/internal/sys"
)

// create starts the command of s in s.Dir, with attr; an empty Dir is the
// current directory.
func create(s *proc.Spec, attr *syscall.ProcAttr) (int, *proc.Failure) {
	dir, argv := s.Dir, s.Argv
	here := dir
	if here == "" {
		here, _ = os.Getwd()
	}
	attr.Dir = dir
	command := s.Command(here)
	last := command.NotFound()
	for _, file := range command.Files {
		pid, err := syscall.ForkExec(file, argv, attr)
		if command.Shell && errors.Is(err, syscall.ENOEXEC) { // a script without a first line; execvp(3) gives it to the shell
			pid, err = syscall.ForkExec("/bin/sh", append([]string{"/bin/sh", file}, argv[1:]...), attr)
		}
		e := errnoOf(err)
		if e == 0 {
			return pid, nil
		}
		if last = command.Next(last, file, e); last.Final() {
			return 0, last
		}
	}
	if dir != "" && attr.Sys != nil {
		if e := enterable(dir, attr.Sys.Credential); e != 0 {
			return 0, &proc.Failure{Op: "chdir", Path: dir, Errno: e}
		}
	}
	return 0, last
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
