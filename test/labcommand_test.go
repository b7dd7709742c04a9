package test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// ssiLab runs `ssi lab` on this machine, as a user does.
func ssiLab(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), binary, append([]string{"lab"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("ssi lab %v: %v", args, err)
	}
	status := cmd.ProcessState.ExitCode()
	if status < 0 {
		status = 128 + int(cmd.ProcessState.Sys().(interface{ Signal() unix.Signal }).Signal())
	}
	return result{out.String(), errs.String(), status}
}

// leftovers is what of labs with this prefix is left on the machine.
func leftovers(t *testing.T, prefix string) (left []string) {
	t.Helper()
	for _, dir := range []string{"/run/ssi-lab", "/sys/fs/cgroup"} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.Contains(e.Name(), prefix) {
				left = append(left, dir+"/"+e.Name())
			}
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, prefix) {
			left = append(left, "mount "+line)
		}
	}
	return left
}

// TestLabRun: `ssi lab run` is a command whose streams and status are those of
// what it runs, and it leaves nothing.
func TestLabRun(t *testing.T) {
	name := "TestLabRun" + unique()
	got := ssiLab(t, "some input\n", "run", "--name", name, "-n", "3", "--", "sh", "-c", "cat; clusternode_num; onall uname -n | sort; echo on stderr >&2; exit 42")
	if (got != result{"some input\n1\nnode1: node1\nnode2: node2\nnode3: node3\n", "on stderr\n", 42}) {
		t.Errorf("lab run: %+v", got)
	}
	for _, test := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"run", "--name", name, "-n", "1", "--", "nosuchprogram"}, 127, "nosuchprogram"},
		{[]string{"run", "--name", name, "-n", "0"}, 2, ""},
		{[]string{"run", "--name", "no/name"}, 255, "no/name"},
		{[]string{"status", "--name", "none"}, 1, "none"},
		{[]string{"exec", "--name", "none", "1", "true"}, 255, "none"},
	} {
		got := ssiLab(t, "", test.args...)
		if got.status != test.status || !strings.Contains(got.stderr, test.says) || got.stdout != "" {
			t.Errorf("ssi lab %v: %+v", test.args, got)
		}
	}
	if left := leftovers(t, name); left != nil {
		t.Errorf("left: %q", left)
	}
}

// TestTwoLabs: two labs side by side, with the same addresses, each its own
// cluster; one is crashed and ended, the other does not notice.
func TestTwoLabs(t *testing.T) {
	names := []string{"TwoLabs-a" + unique(), "TwoLabs-b" + unique()}
	t.Cleanup(func() {
		for _, name := range names {
			ssiLab(t, "", "down", "--name", name)
		}
	})
	var both sync.WaitGroup
	for _, name := range names {
		both.Go(func() {
			if got := ssiLab(t, "", "up", "--name", name, "-n", "2", "--timeout", "60s"); got.status != 0 {
				t.Errorf("lab up: %+v", got)
			}
		})
	}
	both.Wait()
	for _, name := range names {
		ssiLab(t, "", "exec", "--name", name, "1", "clreg", "put", "-q", "/lab", name)
	}
	if got := ssiLab(t, "", "crash", "--name", names[0], "1"); got.status != 0 {
		t.Errorf("lab crash: %+v", got)
	}
	if got := ssiLab(t, "", "status", "--name", names[0]); got.status != 0 || !strings.Contains(got.stdout, "off") {
		t.Errorf("lab status: %+v", got)
	}
	if got := ssiLab(t, "", "exec", "--name", names[1], "2", "sh", "-c", "clreg get /lab; onnode 1 clustername"); (got != result{names[1] + "\n" + names[1] + "\n", "", 0}) {
		t.Errorf("the other lab: %+v", got)
	}
	if got := ssiLab(t, "", "down", "--name", names[0]); got.status != 0 {
		t.Errorf("lab down: %+v", got)
	}
	if left := leftovers(t, names[0]); left != nil {
		t.Errorf("left: %q", left)
	}
	if got := ssiLab(t, "to node 2\n", "exec", "--name", names[1], "1", "onnode", "2", "cat"); (got != result{"to node 2\n", "", 0}) {
		t.Errorf("the other lab after the end of the first: %+v", got)
	}
}
