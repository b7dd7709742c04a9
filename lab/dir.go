package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/errno"
)

// baseDir holds one directory per lab; only root may look into it.
const baseDir = "/run/ssi-lab"

// Files in a lab's directory.
const (
	lockFile    = "lock"           // locked as long as the supervisor lives
	socketFile  = "ctl.sock"       // control socket
	optionsFile = "options.json"   // Options
	logFile     = "supervisor.log" // what the supervisor says about itself
	pidFile     = "pid"            // of the supervisor, in the host's numbers: to be shown and waited for
	cgroupStem  = "ssi-lab-"       // of the name of a lab's cgroup
	lockRetry   = 10 * time.Millisecond
	lockPatient = 2 * time.Second
)

func dirOf(name string) string { return filepath.Join(baseDir, name) }

// errRunning says that a lab's lock is held.
var errRunning = errors.New("a lab of this name is running")

// lockDir takes the lock of a lab's directory and creates both if need be. It
// returns errRunning if another process holds it.
func lockDir(name string, create bool) (*os.File, error) {
	path := filepath.Join(dirOf(name), lockFile)
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE
	}
	for {
		if create {
			if err := os.MkdirAll(dirOf(name), 0o700); err != nil {
				return nil, fmt.Errorf("lab: %w", err)
			}
		}
		f, err := os.OpenFile(path, flags, 0o600)
		if errors.Is(err, fs.ErrNotExist) && create {
			continue // removed in between by who swept it
		}
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, errRunning
			}
			return nil, fmt.Errorf("lab: lock %s: %w", path, err)
		}
		// The file may have been removed between open and lock.
		mine, err1 := f.Stat()
		there, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(mine, there) {
			return f, nil
		}
		_ = f.Close()
		if !create {
			return nil, fs.ErrNotExist
		}
	}
}

// claim takes the lock of a new lab. A lock that is held without a supervisor
// that answers belongs to someone who sweeps or ends: it is waited for.
func claim(ctx context.Context, name string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, lockPatient)
	defer cancel()
	for {
		f, err := lockDir(name, true)
		if !errors.Is(err, errRunning) {
			return f, err
		}
		if l, aerr := Attach(ctx, name); aerr == nil {
			_ = l.Close()
			return nil, errno.New(errno.Exists, "lab", 0, "a lab named %q is running: use it (`ssi lab status`), end it (`ssi lab down --name %s`), or choose another --name", name, name)
		}
		select {
		case <-ctx.Done():
			return nil, errno.New(errno.Exists, "lab", 0, "a lab named %q is starting or ending: try again, or choose another --name", name)
		case <-time.After(lockRetry):
		}
	}
}

// Sweep removes what is left of labs whose supervisor is gone and returns their
// names. Running labs are not touched.
func Sweep() ([]string, error) {
	var swept []string
	names, err := names()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		lock, err := lockDir(name, false)
		switch {
		case errors.Is(err, errRunning):
			continue
		case errors.Is(err, fs.ErrNotExist): // a directory without lock is no lab yet, or no more
			_ = os.Remove(dirOf(name))
			continue
		case err != nil:
			return swept, err
		}
		err = removeRests(name)
		_ = lock.Close()
		if err != nil {
			return swept, err
		}
		swept = append(swept, name)
	}
	_ = os.Remove(baseDir) // succeeds for the last one
	return swept, nil
}

// removeRests removes the cgroups and the directory of a lab that is gone; the
// caller holds its lock.
func removeRests(name string) error {
	cg, err := openCgroups()
	if err != nil {
		return err
	}
	defer cg.close()
	if err := cg.remove(cgroupStem + name); err != nil {
		return err
	}
	if err := os.RemoveAll(dirOf(name)); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}

// names lists the labs that have a directory.
func names() ([]string, error) {
	entries, err := os.ReadDir(baseDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	var list []string
	for _, e := range entries {
		if e.IsDir() && checkName(e.Name()) == nil {
			list = append(list, e.Name())
		}
	}
	return list, nil
}
