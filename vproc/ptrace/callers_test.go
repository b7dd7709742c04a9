package ptrace

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// by runs the caller of otherNode by another program, and returns what it prints.
func by(t *testing.T, program []string, path string) string {
	t.Helper()
	if _, err := exec.LookPath(program[0]); err != nil {
		t.Skipf("%s is not installed: %v", program[0], err)
	}
	p := start(t, append(program, caller(t), "plain", strconv.Itoa(otherNode), path)...)
	p.serve()
	got, _ := p.end()
	return strings.TrimSpace(got)
}

// Who is traced cannot be seized.
func TestTraced(t *testing.T) {
	if got := by(t, []string{"strace", "-o", "/dev/null"}, "/bin/true"); got != "plain -1 EBUSY" {
		t.Errorf("%q", got)
	}
}

// In another PID namespace there is no cluster.
func TestNested(t *testing.T) {
	if got := by(t, []string{"unshare", "-pf"}, "/bin/true"); got != "plain -1 ENOSYS" {
		t.Errorf("%q", got)
	}
}

// The program is looked for with the caller's rights.
func TestOtherUser(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	must(t, os.Chmod(dir, 0o755))
	must(t, os.Chdir("/"))
	t.Cleanup(func() { must(t, os.Chdir(filepath.Dir(self(t)))) })
	secret := filepath.Join(dir, "secret")
	must(t, os.WriteFile(secret, []byte("#!/bin/sh\n"), 0o700))
	nobody := []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}
	if got := by(t, nobody, secret); got != "plain -1 EACCES" {
		t.Errorf("%q", got)
	}
	// The test binary may be where nobody can reach it.
	if got := by(t, nobody, "/bin/true"); !strings.HasPrefix(got, "surrogate ") && got != "plain -1 EACCES" {
		t.Errorf("%q", got)
	}
}

func self(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	must(t, err)
	return path
}

// Without this program under its name there can be no surrogate.
func TestChroot(t *testing.T) {
	root := t.TempDir()
	b, err := os.ReadFile(caller(t))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(root, "caller"), b, 0o755))
	p := start(t, "chroot", root, "/caller", "plain", strconv.Itoa(otherNode), "/caller")
	p.serve()
	if got, _ := p.end(); got != "plain -1 EOPNOTSUPP\n" {
		t.Errorf("%q", got)
	}
}

// Programs of 32 bits, and those of 64 that call as these do.
func TestI386(t *testing.T) {
	source := filepath.Join(t.TempDir(), "compat.c")
	must(t, os.WriteFile(source, []byte(`
void _start(void)
{
	long r;
	__asm__ volatile("int $0x80" : "=a"(r) : "0"(0x5504), "b"(0), "c"(0), "d"(0), "S"(100));
	__asm__ volatile("int $0x80" : : "a"(1), "b"(r == -38 ? 38 : 1));
}
`), 0o644))
	for _, bits := range []string{"32", "64"} {
		path := filepath.Join(t.TempDir(), "compat"+bits)
		out, err := exec.Command("gcc", "-m"+bits, "-O1", "-static", "-no-pie", "-fno-pie", "-nostdlib", "-fno-stack-protector", "-o", path, source).CombinedOutput()
		if err != nil {
			t.Skipf("gcc -m%s: %v\n%s", bits, err, out)
		}
		p := start(t, path)
		p.serve()
		if got, st := p.end(); st.ExitCode() != 38 {
			t.Errorf("%s bits: %q, %v", bits, got, st)
		}
	}
}

// state is the state of a process, and who traces it.
func state(pid int) (s, tracer string) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "", ""
	}
	for line := range strings.Lines(string(b)) {
		name, v, _ := strings.Cut(line, ":")
		switch v = strings.TrimSpace(v); name {
		case "State":
			s = v[:1]
		case "TracerPid":
			tracer = v
		}
	}
	return s, tracer
}

// calling waits until the program waits in its call.
func (p *program) calling() {
	p.t.Helper()
	eventually(p.t, "the call", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", p.cmd.Process.Pid))
		return err == nil && strings.HasPrefix(string(b), "21764 ")
	})
}

// A caller that was stopped meanwhile stays so, untraced, and goes on when it is
// continued.
func TestStopped(t *testing.T) {
	p := start(t, caller(t), "plain", strconv.Itoa(otherNode), "/bin/true")
	p.calling()
	must(t, p.cmd.Process.Signal(unix.SIGSTOP))
	p.serve()
	eventually(t, "a stopped caller", func() bool {
		s, tracer := state(p.cmd.Process.Pid)
		return s == "T" && tracer == "0"
	})
	must(t, p.cmd.Process.Signal(unix.SIGCONT))
	if got, st := p.end(); !strings.HasPrefix(got, "surrogate ") || !st.Success() {
		t.Errorf("%q, %v", got, st)
	}
}

// A caller can be killed at any moment, and the daemon goes on.
func TestKilledCaller(t *testing.T) {
	for range 30 {
		p := start(t, caller(t), "plain", strconv.Itoa(otherNode), "/bin/true")
		p.calling()
		p.serve()
		// The daemon takes some ten milliseconds to start.
		<-time.After(rand.N(40 * time.Millisecond))
		_ = p.cmd.Process.Kill()
		_, _ = p.end()
	}
}

// Threads of one process call at the same time, while another one executes a program or
// ends them all: one of these comes true, and nothing hangs.
func TestRace(t *testing.T) {
	for range 40 {
		p := start(t, caller(t), "race", strconv.Itoa(otherNode), "/bin/true")
		p.serve()
		got, st := p.end()
		if got != "end\n" && got != "other program\n" && !strings.HasPrefix(got, "surrogate ") || !st.Success() {
			t.Fatalf("%q, %v", got, st)
		}
	}
}

// What is at an address changes all the time: what was checked is not what is there
// when the program is executed. The caller has an error then, and nothing is left.
func TestChanging(t *testing.T) {
	for range 5 {
		got, st := calls(t, "changing", otherNode, "/bin/true")
		if !strings.HasPrefix(got, "surrogate ") || !st.Success() {
			t.Errorf("%q, %v", got, st)
		}
	}
}

// Daemons are killed at any moment: the caller has an error, is the program, or waits
// for the next daemon.
func TestKilledDaemon(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	for i := range rounds {
		p := start(t, caller(t), "again", strconv.Itoa([]int{otherNode, int(testNode())}[i%2]), "/bin/echo", "surrogate")
		p.calling()
		journal := filepath.Join(t.TempDir(), "journal")
		for range 3 {
			d := p.daemon(journal)
			<-time.After(10*time.Millisecond + rand.N(20*time.Millisecond))
			_ = d.cmd.Process.Kill()
			_ = d.cmd.Wait()
		}
		d := p.daemon(journal)
		got, st := p.end()
		_ = d.end.Close()
		if err := d.cmd.Wait(); err != nil {
			t.Errorf("the daemon: %v", err)
		}
		if !strings.HasPrefix(got, "surrogate") || !st.Success() {
			t.Fatalf("round %d: %q, %v", i, got, st)
		}
	}
}
