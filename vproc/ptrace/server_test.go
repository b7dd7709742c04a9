package ptrace

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// expected is what a surrogate says of itself.
func expected(pid, ppid, pgid, sid int, path, arg0 string, args []string, env ...string) string {
	if len(env) == 0 {
		env = []string{"A=1", "B=two words"}
	}
	return fmt.Sprintf("surrogate %d %d %d %d of %s as %s on %d: %q %q\n", pid, ppid, pgid, sid, path, arg0, otherNode, args, env)
}

func own(t testing.TB) (pid, pgid, sid int) {
	t.Helper()
	sid, err := unix.Getsid(0)
	must(t, err)
	return os.Getpid(), unix.Getpgrp(), sid
}

// The caller becomes the surrogate of what it asked for, under its PID.
func TestBecomes(t *testing.T) {
	ppid, pgid, sid := own(t)
	for _, mode := range []string{"plain", "thread"} {
		p := start(t, caller(t), mode, strconv.Itoa(otherNode), "/bin/true", "one", "two words", "")
		p.serve()
		got, st := p.end()
		want := expected(p.cmd.Process.Pid, ppid, pgid, sid, "/bin/true", "/bin/true", []string{"one", "two words", ""})
		if got != want || !st.Success() {
			t.Errorf("%s: %q, %v\nwant %q", mode, got, st, want)
		}
	}
}

// A caller without a standard input gets the order there.
func TestClosedInput(t *testing.T) {
	p := start(t, "sh", "-c", fmt.Sprintf("exec %s plain %d /bin/true <&-", caller(t), otherNode))
	p.serve()
	got, st := p.end()
	if !strings.Contains(got, " of /bin/true ") || !st.Success() {
		t.Errorf("%q, %v", got, st)
	}
}

// execve(2) takes null pointers for lists that are empty.
func TestEmptyLists(t *testing.T) {
	got, st := calls(t, "null", otherNode, "/bin/true")
	if !strings.Contains(got, " of /bin/true as  on 100: [] []\n") || !st.Success() {
		t.Errorf("%q, %v", got, st)
	}
}

// A child of vfork(2) uses the memory of its parent, which goes on when it has become
// the program.
func TestVfork(t *testing.T) {
	_, pgid, sid := own(t)
	p := start(t, caller(t), "vfork", strconv.Itoa(otherNode), "/bin/true", "a")
	p.serve()
	got, st := p.end()
	lines := strings.SplitAfter(got, "\n")
	var child int
	if _, err := fmt.Sscanf(lines[1], "%d child 0", &child); err != nil {
		t.Fatalf("%q: %v", got, err)
	}
	if want := expected(child, p.cmd.Process.Pid, pgid, sid, "/bin/true", "/bin/true", []string{"a"}); lines[0] != want {
		t.Errorf("%q, %v\nwant %q", got, st, want)
	}
}

// The status of the surrogate is that of the process.
func TestDeath(t *testing.T) {
	got, st := calls(t, "plain", otherNode, "/bin/true", "die")
	if ws := st.Sys().(syscall.WaitStatus); got == "" || !ws.Signaled() || ws.Signal() != unix.SIGKILL {
		t.Errorf("%q, %v", got, st)
	}
}

// On its own node a program is just executed.
func TestOwnNode(t *testing.T) {
	for _, mode := range []string{"plain", "thread"} {
		got, st := calls(t, mode, int(testNode()), "/bin/sh", "-c", "echo $A $B $KEPT; exit 7")
		if got != "1 two words\n" || st.ExitCode() != 7 {
			t.Errorf("%s: %q, %v", mode, got, st)
		}
	}
	fails(t, "ENOENT", "registers", int(testNode()), "/nowhere")
	fails(t, "EACCES", "registers", int(testNode()), "/")
}

// What cannot be is refused as execve(2) does, and leaves the caller as it was.
func TestRefused(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(content), mode))
		return path
	}
	must(t, os.Symlink("loop", filepath.Join(dir, "loop")))
	for _, c := range []struct {
		node int
		path string
		want string
	}{
		{0, "/bin/true", "EINVAL"},
		{-1, "/bin/true", "EINVAL"},
		{128, "/bin/true", "EINVAL"},
		{99, "/bin/true", "EINVAL"},
		{witnessNode, "/bin/true", "EINVAL"},
		{downNode, "/bin/true", "EHOSTDOWN"},
		{silentNode, "/bin/true", "EHOSTDOWN"},
		{otherNode, "/nowhere", "ENOENT"},
		{otherNode, "true", "ENOENT"}, // not looked up
		{otherNode, "/bin/true/x", "ENOTDIR"},
		{otherNode, dir, "EACCES"},
		{otherNode, "/dev/null", "EACCES"},
		{otherNode, dir + "/loop", "ELOOP"},
		{otherNode, "/" + strings.Repeat("x", 300), "ENAMETOOLONG"},
		{otherNode, file("not", "#!/bin/sh\n", 0o644), "EACCES"},
		{otherNode, file("plain", "echo\n", 0o755), "ENOEXEC"},
		{otherNode, file("empty", "", 0o755), "ENOEXEC"},
		{otherNode, file("script", "#! /nowhere/sh -x\n", 0o755), "ENOENT"},
	} {
		if c.want == "ENOEXEC" && othersRegistered() {
			continue
		}
		fails(t, c.want, "registers", c.node, c.path)
	}
}

// Pointers to nowhere, and too much.
func TestAddresses(t *testing.T) {
	got, _ := calls(t, "addresses", otherNode)
	want := `no path -1 EFAULT
path without end -1 EFAULT
argument -1 EFAULT
environment -1 EFAULT
list without end -1 EFAULT
list nowhere -1 EFAULT
empty path -1 ENOENT
long path -1 ENAMETOOLONG
long argument -1 E2BIG
many arguments -1 E2BIG
`
	if got != want {
		t.Errorf("%s", got)
	}
}

// Signals that come meanwhile are handled in the caller, or kill the program.
func TestSignals(t *testing.T) {
	got, st := calls(t, "signals", otherNode, "/bin/true")
	if strings.Contains(got, "not refused") || st.Exited() && !st.Success() {
		t.Errorf("%q, %v", got, st)
	}
}

// A caller that can open no file more.
func TestNoDescriptor(t *testing.T) {
	fails(t, "EMFILE", "files", otherNode, "/bin/true")
}

// Another filter forbids what the caller is to do: it is told so, and keeps all it had.
func TestFiltered(t *testing.T) { fails(t, "EPERM", "filtered", otherNode, "/bin/true") }
