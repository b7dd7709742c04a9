package pid1

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"ssi/internal/id"
)

// cgroup is the directory of the cgroup (version 2) that holds the spawn role
// and every process it created, so that one write ends them all, even one that
// is being created. It is empty if there is none.
//
// The spawn role enters it by itself. It is not created in it
// (CLONE_INTO_CGROUP): Linux 6.18 compares the count of cgroup.kill writes of the
// creator's cgroup with that of the new one, and kills whatever is created in a
// cgroup that was ever killed.
type cgroup string

// openCgroup makes the cgroup NAME/rexec below the cgroup2 file system.
func openCgroup(name string) (cgroup, error) {
	root, err := cgroupRoot()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, name, "rexec")
	for _, dir := range []string{filepath.Dir(path), path} {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
	}
	return cgroup(path), nil
}

// maxTasks is how many processes and threads of users a node has at most: half a
// PID window, so that its watcher always finds free numbers before the end.
const maxTasks = 1 << (id.PIDShift - 1)

// limit keeps the number of processes and threads below maxTasks. An error says
// that the machine's cgroup2 has no such controller (it may be in version 1).
func (c cgroup) limit() error {
	own := filepath.Dir(string(c))
	// The first may fail where it was done already, or is not ours to do: the file tells.
	_ = os.WriteFile(filepath.Join(filepath.Dir(own), "cgroup.subtree_control"), []byte("+pids"), 0)
	return os.WriteFile(filepath.Join(own, "pids.max"), strconv.AppendInt(nil, maxTasks, 10), 0)
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

// kill ends every process of the cgroup.
func (c cgroup) kill() {
	if c != "" {
		_ = os.WriteFile(filepath.Join(string(c), "cgroup.kill"), []byte("1"), 0)
	}
}

// remove removes the cgroup, if it is empty.
func (c cgroup) remove() {
	if c != "" {
		_ = os.Remove(string(c))
		_ = os.Remove(filepath.Dir(string(c)))
	}
}
