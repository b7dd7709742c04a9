package procfs

import (
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// as runs a command as another user.
func as(uid uint32, groups []uint32, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: groups}}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// What one user may not see of another one's process on one machine, it may not
// see across nodes: also when root has just looked at it.
func TestViewPermissions(t *testing.T) {
	pids := remotePIDs(t)
	for _, c := range []struct {
		uid     uint32
		of      string
		name    string
		allowed bool
	}{
		{0, "root", "environ", true}, {0, "user", "environ", true}, {0, "root", "maps", true}, {0, "user", "fd/3", true}, {0, "user", "cwd", true},
		{1234, "user", "environ", true}, {1234, "user", "maps", true}, {1234, "user", "fd/3", true}, {1234, "user", "exe", true}, {1234, "user", "fdinfo/0", true},
		{1234, "root", "environ", false}, {1234, "root", "maps", false}, {1234, "root", "fd/3", false}, {1234, "root", "exe", false}, {1234, "root", "fdinfo/0", false},
		{65534, "root", "environ", false}, {65534, "root", "maps", false}, {65534, "root", "smaps_rollup", false}, {65534, "root", "auxv", false},
		{65534, "root", "io", false}, {65534, "root", "fd/3", false}, {65534, "root", "cwd", false}, {65534, "root", "ns/net", false}, {65534, "root", "fdinfo/0", false},
		{65534, "root", "stack", false}, {65534, "root", "syscall", false}, {65534, "root", "personality", false},
		{65534, "user", "environ", false}, {65534, "user", "maps", false}, {65534, "user", "fd/3", false}, {65534, "user", "exe", false},
		{65534, "root", "status", true}, {65534, "root", "cmdline", true}, {65534, "root", "limits", true}, {65534, "root", "cgroup", true}, {65534, "root", "where", true},
	} {
		tool := "cat"
		st, err := os.Lstat(file(pids[c.of], c.name))
		if err != nil {
			t.Errorf("%s of %s: %v", c.name, c.of, err)
			continue
		}
		if st.Mode()&fs.ModeSymlink != 0 {
			tool = "readlink"
		}
		root, err := run(t, tool, file(pids[c.of], c.name)) // so that something is cached
		if err != nil {
			t.Errorf("root cannot %s %s of %s: %v, %s", tool, c.name, c.of, err, root)
		}
		args := []string{tool}
		if tool == "readlink" {
			args = append(args, "-v")
		}
		args = append(args, file(pids[c.of], c.name))
		out, err := as(c.uid, nil, args[0], args[1:]...)
		switch {
		case c.allowed && err != nil:
			t.Errorf("user %d may not read %s of %s: %v, %s", c.uid, c.name, c.of, err, out)
		case c.allowed && out != root:
			t.Errorf("user %d reads %q from %s of %s, root %q", c.uid, out, c.name, c.of, root)
		case !c.allowed && (err == nil || !strings.Contains(out, "Permission denied") && !strings.Contains(out, "Operation not permitted")):
			t.Errorf("user %d reads %s of %s: %v, %s", c.uid, c.name, c.of, err, out)
		case !c.allowed && root != "" && strings.Contains(out, root):
			t.Errorf("user %d is told %q", c.uid, out)
		}
	}
	if out, err := as(65534, nil, "ls", file(pids["root"], "fd")); err == nil || !strings.Contains(out, "Permission denied") {
		t.Errorf("a stranger lists descriptors: %v, %s", err, out)
	}
	// Memory addresses are nobody's business on another node.
	here, err := os.ReadFile(file(pids["root"], "stat"))
	if err != nil || statField(here, 28) != 0 || statField(here, 29) != 0 { // kstkesp, kstkeip
		t.Errorf("%s, %v", here, err)
	}
	// Root without capabilities is not root there.
	if _, err := exec.LookPath("setpriv"); err == nil {
		out, err := run(t, "setpriv", "--bounding-set=-all", "--inh-caps=-all", "cat", file(pids["user"], "environ"))
		if err == nil || strings.Contains(out, "SECRET") {
			t.Errorf("user 0 without capabilities reads %q, %v", out, err)
		}
	}
	// Nor is root of a user namespace.
	out, err := as(65534, nil, "unshare", "-Ur", "cat", file(pids["root"], "environ"))
	if err == nil || strings.Contains(out, "SECRET") {
		t.Errorf("root of a user namespace reads %q, %v", out, err)
	}
	if out, err := run(t, "unshare", "-Ur", "cat", file(pids["user"], "environ")); err == nil || strings.Contains(out, "SECRET") {
		t.Errorf("root's user namespace reads %q, %v", out, err)
	}
}
