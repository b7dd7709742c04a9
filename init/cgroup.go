package pid1

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// cgroup is the cgroup (version 2) that holds the spawn role and every process
// it created, so that one write ends them all, even one that is being created.
type cgroup struct {
	path string
	dir  *os.File // nil: there is none
}

// openCgroup makes the cgroup NAME/rexec below the cgroup2 file system.
func openCgroup(name string) (cgroup, error) {
	root, err := cgroupRoot()
	if err != nil {
		return cgroup{}, err
	}
	path := filepath.Join(root, name, "rexec")
	for _, dir := range []string{filepath.Dir(path), path} {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return cgroup{}, err
		}
	}
	dir, err := os.Open(path)
	if err != nil {
		return cgroup{}, err
	}
	return cgroup{path: path, dir: dir}, nil
}

// cgroupRoot finds the cgroup2 file system; see proc_pid_mountinfo(5).
func cgroupRoot() (string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		mount, super, ok := strings.Cut(line, " - ")
		if fields := strings.Fields(mount); ok && len(fields) > 4 && strings.HasPrefix(super, "cgroup2 ") {
			return fields[4], nil
		}
	}
	return "", fmt.Errorf("no cgroup2 file system is mounted")
}

func (c cgroup) fd() int {
	if c.dir == nil {
		return -1
	}
	return int(c.dir.Fd())
}

// kill ends every process of the cgroup.
func (c cgroup) kill() {
	if c.dir != nil {
		_ = os.WriteFile(filepath.Join(c.path, "cgroup.kill"), []byte("1"), 0)
	}
}

// close removes the cgroup, if it is empty.
func (c cgroup) close() {
	if c.dir != nil {
		_ = c.dir.Close()
		_ = os.Remove(c.path)
		_ = os.Remove(filepath.Dir(c.path))
	}
}
