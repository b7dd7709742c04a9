package test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/lab"
)

// A conformance program prints facts about processes it started, see
// testdata/conformance/conform.h: on one plain Linux machine, which is the
// oracle, and on a cluster whose other node has those processes.
type conformance struct {
	name  string
	facts int // it tells at least as many
	// onnode is how the processes are created on the other node: with -l they have PIDs
	// of that node, and all that is said of a PID goes there; else they have the PID of
	// their surrogate here, with its parent, group and session.
	onnode string
	// differ are facts, or lines of the oracle, that are not the same across nodes.
	differ []string
}

func conformances() []conformance {
	const (
		there = "onnode -l 2"
		place = "onnode 2"
	)
	return []conformance{
		// SIGCONT to one of the own session is permitted; there it is another one.
		{name: "kill", facts: 65, onnode: there, differ: []string{"alice: kill(root's, 18)", "alice: kill(bob's, 18)"}},
		{name: "killpg", facts: 30, onnode: place},
		{name: "killall", facts: 12, onnode: there},
		{name: "sigqueue", facts: 30, onnode: there},
		{name: "tkill", facts: 24, onnode: there},
		{name: "pidfd", facts: 34, onnode: there},
		{name: "priority", facts: 40, onnode: place},
		{name: "scheduling", facts: 34, onnode: there},
		{name: "affinity", facts: 20, onnode: there},
		{name: "limits", facts: 22, onnode: place},
		{name: "ioprio", facts: 21, onnode: place},
		// What a process does later to its own group and session, its surrogate does not do.
		{name: "ids", facts: 40, onnode: place, differ: []string{"getpgid(b.pid) = b", "getpgid(b.pid) = a", "getsid(b.pid) = b"}},
		{name: "waits", facts: 40, onnode: place},
		// Nobody but a terminal can send what says that a terminal sent it.
		{name: "session", facts: 28, onnode: place, differ: []string{
			"^C: a", "^C: b", "^\\: a", "^\\: b", "new size: a", "new size: b", "^C: c", "hang-up: a", "hang-up: b",
		}},
		{name: "orphan", facts: 17, onnode: place},
		{name: "procfs", facts: 140, onnode: place},
	}
}

// conformancePatience is more than the alarm that ends each program.
const conformancePatience = 2 * time.Minute

// TestConformance runs each program on plain Linux, twice, because a fact that
// is not the same each time is none, and on the cluster.
func TestConformance(t *testing.T) {
	dir := buildConformance(t)
	var c *cluster
	for _, p := range conformances() {
		if c == nil {
			c = start(t, 2, func(o *lab.Options) { o.Share = append(o.Share, dir) })
		}
		t.Run(p.name, func(t *testing.T) {
			path := filepath.Join(dir, p.name)
			want := plainLinux(t, path)
			lines := strings.Split(strings.TrimSuffix(want, "\n"), "\n")
			if len(lines)-1 < p.facts || lines[len(lines)-1] != "end" {
				t.Fatalf("it should tell %d facts and then \"end\":\n%s", p.facts, want)
			}
			compare(t, "plain Linux", lines, plainLinux(t, path), nil)
			c := &cluster{c.Lab, t}
			got := c.login(1, "", "env", "ONNODE="+p.onnode, path)
			compare(t, "the cluster", lines, got.stdout, p.differ)
			if got.status != 0 || got.stderr != "" {
				t.Errorf("the cluster: status %d, stderr %q", got.status, got.stderr)
			}
		})
	}
}

// compare says which lines are not those of the oracle. The facts of differ are
// others, all of them: the list shrinks with what is built.
func compare(t *testing.T, where string, want []string, output string, differ []string) {
	t.Helper()
	got := strings.Split(strings.TrimSuffix(output, "\n"), "\n")
	for i := range max(len(want), len(got)) {
		var w, g string
		if i < len(want) {
			w = want[i]
		}
		if i < len(got) {
			g = got[i]
		}
		fact, _, _ := strings.Cut(w, " = ")
		if (w != g) != (slices.Contains(differ, fact) || slices.Contains(differ, w)) {
			t.Errorf("%s, line %d: %q, the oracle says %q", where, i+1, g, w)
		}
	}
}

// plainLinux runs a command in a PID and a mount namespace of its own, where a
// shell is PID 1, and returns its output.
func plainLinux(t *testing.T, argv ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), conformancePatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", `mount -t proc proc /proc && "$@"; exit $?`, "sh"}, argv...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	cmd.Dir = "/" // as in the cluster
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.String() != "" {
		t.Fatalf("plain Linux: %v, stderr %q\n%s", err, stderr.String(), out)
	}
	return string(out)
}

// buildConformance compiles the programs.
func buildConformance(t *testing.T) string {
	t.Helper()
	dir := enterable(t)
	sources, err := filepath.Glob("../testdata/conformance/*.c")
	if err != nil || len(sources) != len(conformances())+1 {
		t.Fatalf("%d programs in testdata/conformance (%v), %d in the table", len(sources)-1, err, len(conformances()))
	}
	for _, src := range sources {
		compile(t, filepath.Join(dir, strings.TrimSuffix(filepath.Base(src), ".c")), src)
	}
	return dir
}

// enterable makes a directory that every user may enter.
func enterable(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// compile makes a static program of a C file.
func compile(t *testing.T, out string, src string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	args = append([]string{"-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-static", "-pthread", "-o", out, src}, args...)
	if msg, err := exec.CommandContext(ctx, "gcc", args...).CombinedOutput(); err != nil {
		t.Fatal(fmt.Errorf("%s: %w\n%s", src, err, msg))
	}
}
