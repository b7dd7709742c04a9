package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
	"ssi/internal/proc"
)

// startAs starts a command with a PID that is free on node n, which is this machine. Where one sets
// the PID of the next process, others may take it: then it is tried again.
func startAs(n id.Node, pid int, command func() *exec.Cmd) (*exec.Cmd, error) {
	const last = "/proc/sys/kernel/ns_last_pid"
	before, err := os.ReadFile(last)
	if err != nil {
		return nil, err
	}
	if now, err := strconv.Atoi(strings.TrimSpace(string(before))); err != nil || id.PID(now).Home() != n {
		first, _ := n.Window()
		before = []byte(strconv.Itoa(int(first) + 10_000))
	}
	defer func() { _ = os.WriteFile(last, before, 0) }()
	for range 10 { // then it is the number of a thread
		cmd := command()
		runtime.LockOSThread()
		err := os.WriteFile(last, []byte(strconv.Itoa(pid-1)), 0)
		if err == nil {
			err = cmd.Start()
		}
		runtime.UnlockOSThread()
		if err != nil {
			return nil, err
		}
		if cmd.Process.Pid == pid {
			return cmd, nil
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	return nil, fmt.Errorf("PID %d is taken", pid)
}

// itselfRole is a program that looks at itself in /proc, from several threads, at once when it starts.
func itselfRole() int {
	pid := strconv.Itoa(os.Getpid())
	read := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			return err.Error()
		}
		return string(b)
	}
	if got := read("/proc/self/cmdline"); !strings.Contains(got, "looks-at-itself") {
		return fatal("itself", fmt.Errorf("/proc/self is %q", got))
	}
	if got := read("/proc/" + pid + "/cmdline"); !strings.Contains(got, "looks-at-itself") {
		return fatal("itself", fmt.Errorf("/proc/%s is %q", pid, got))
	}
	for name, want := range map[string]string{"/proc/self": pid, "/proc/" + pid: ".local/" + pid} {
		if got, err := os.Readlink(name); err != nil || got != want {
			return fatal("itself", fmt.Errorf("%s leads to %q, %v", name, got, err))
		}
	}
	if _, err := os.Readlink("/proc/self/fd/0"); err != nil {
		return fatal("itself", err)
	}
	var wg sync.WaitGroup
	errs := make(chan error, 4)
	for range cap(errs) {
		wg.Go(func() {
			runtime.LockOSThread()
			status := []byte("\n" + read("/proc/thread-self/status"))
			if string(statusLine(status, "Pid")) != strconv.Itoa(unix.Gettid()) || string(statusLine(status, "Tgid")) != pid {
				errs <- fmt.Errorf("/proc/thread-self of thread %d is %q", unix.Gettid(), status)
			}
		})
	}
	wg.Wait()
	close(errs)
	if err := errors.Join(slices.Collect(func(yield func(error) bool) {
		for err := range errs {
			if !yield(err) {
				return
			}
		}
	})...); err != nil {
		return fatal("itself", err)
	}
	fmt.Println("well")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test is done with it
	return 0
}

// A process that another node placed here sees itself, from its first moment: also when its surrogate was
// looked at just before. When it ends, its surrogate shows again.
func TestViewPlacedHere(t *testing.T) {
	remotePIDs(t)
	for _, names := range [][]string{{"idle2", "idle12", "idle13"}, {"idle3", "idle14", "idle15"}} {
		if _, err := os.ReadDir("/proc"); err != nil {
			t.Fatal(err)
		}
		var in io.WriteCloser
		var out *os.File
		cmd, pid := startAsOne(t, func() *exec.Cmd {
			cmd := self("itself", "looks-at-itself")
			cmd.Stdout, cmd.Stderr = nil, nil
			in, _ = cmd.StdinPipe()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stdout, cmd.Stderr, out = w, w, r
			t.Cleanup(func() { _, _ = r.Close(), w.Close() })
			return cmd
		}, names...)
		said := make([]byte, 4096)
		n, err := out.Read(said)
		if err != nil || string(said[:n]) != "well\n" {
			t.Errorf("it says %q, %v", said[:n], err)
		}
		list, err := os.ReadDir("/proc")
		if err != nil {
			t.Fatal(err)
		}
		if n := len(slices.DeleteFunc(list, func(e os.DirEntry) bool { return e.Name() != strconv.Itoa(pid) })); n != 1 {
			t.Errorf("it is listed %d times", n)
		}
		if got := output(t, "ps", "-o", "args=", "-p", strconv.Itoa(pid)); !strings.Contains(got, "looks-at-itself") {
			t.Errorf("ps shows %q", got)
		}
		_ = in.Close()
		_ = cmd.Wait()
		within(t, 5*time.Second, func() error {
			if b, err := os.ReadFile(file(pid, "comm")); err != nil || string(b) != "sleep\n" {
				return fmt.Errorf("after its end: %q, %w", b, err)
			}
			return nil
		})
	}
}

// startAsOne is startAs for the first of these processes of machine 2 whose PID is free here.
func startAsOne(t *testing.T, command func() *exec.Cmd, names ...string) (*exec.Cmd, int) {
	t.Helper()
	var pids []int
	for _, name := range names {
		pid := remotePIDs(t)[name]
		if b, err := os.ReadFile(file(pid, "comm")); err != nil || string(b) != "sleep\n" {
			t.Fatalf("%q, %v", b, err)
		}
		pids = append(pids, pid)
	}
	return startAsFree(t, command, pids...)
}

// startAsFree is startAs for the first of these numbers that is free here.
func startAsFree(t *testing.T, command func() *exec.Cmd, pids ...int) (*exec.Cmd, int) {
	t.Helper()
	var errs []error
	for _, pid := range pids {
		cmd, err := startAs(1, pid, command)
		if err == nil {
			return cmd, pid
		}
		errs = append(errs, err)
	}
	t.Fatal(errors.Join(errs...))
	return nil, 0
}

// What the role node tells of a placed process reaches those that look at it by its number.
func TestViewPlacedTold(t *testing.T) {
	cmd, pid := startAsOne(t, func() *exec.Cmd { return exec.Command("tail", "-f", "/dev/null") }, "idle4", "idle8", "idle9")
	defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }()
	ask(t, "here", strconv.Itoa(pid))
	within(t, attrTTL/3, func() error {
		if b, err := os.ReadFile(file(pid, "comm")); err != nil || string(b) != "tail\n" {
			return fmt.Errorf("%q, %w", b, err)
		}
		return nil
	})
}

// A stand-in is nobody: its PID leads to the process that it stands for. A process that only has its name
// is shown.
func TestViewStandIn(t *testing.T) {
	pids := remotePIDs(t)
	program, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip("sleep is not installed")
	}
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "standin") // t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, proc.StandIn)
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(path, b, 0o755)); err != nil {
		t.Fatal(err)
	}
	_, end := id.Node(3).Window()
	for _, c := range []struct {
		pids  []int
		uid   uint32
		shown string
	}{
		{[]int{pids["idle5"], pids["idle16"]}, 0, "sleep\n"},
		{[]int{pids["idle6"], pids["idle17"]}, 1234, proc.StandIn + "\n"},
		{[]int{int(end) - 100, int(end) - 110, int(end) - 120}, 0, ""}, // of a process that nobody knows
		{[]int{int(end) - 200, int(end) - 210, int(end) - 220}, 1234, proc.StandIn + "\n"},
	} {
		cmd, pid := startAsFree(t, func() *exec.Cmd {
			cmd := exec.Command(path, "100000")
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: c.uid, Gid: c.uid}}
			return cmd
		}, c.pids...)
		shown := func() string {
			b, _ := os.ReadFile(file(pid, "comm"))
			list, err := os.ReadDir("/proc")
			if err != nil {
				t.Fatal(err)
			}
			if listed := slices.ContainsFunc(list, func(e os.DirEntry) bool { return e.Name() == strconv.Itoa(pid) }); listed != (c.shown != "") {
				return fmt.Sprintf("%q, listed %v", b, listed)
			}
			return string(b)
		}
		within(t, 5*time.Second, func() error {
			if got := shown(); got != c.shown {
				return fmt.Errorf("%d of user %d is %s, want %q", pid, c.uid, got, c.shown)
			}
			return nil
		})
		_, _ = cmd.Process.Kill(), cmd.Wait()
	}
}

// A process of this node that lives on another one is shown as it is there, and so is one of a third node; while
// nothing tells of it, its surrogate is shown.
func TestViewAway(t *testing.T) {
	remotePIDs(t)
	surrogate := exec.Command("tail", "-f", "/dev/null")
	if err := surrogate.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = surrogate.Process.Kill(), surrogate.Wait() }()
	third, _ := id.Node(3).Window()
	for _, c := range []struct {
		pid    int
		before string
	}{{surrogate.Process.Pid, "tail\n"}, {int(third) + 77, ""}} {
		comm := func() string {
			b, _ := os.ReadFile(file(c.pid, "comm"))
			return string(b)
		}
		if got := comm(); got != c.before {
			t.Fatalf("before it is %q, not %q", got, c.before)
		}
		pid := strconv.Itoa(c.pid)
		ask(t, "there", pid)
		if c.before != "" {
			ask(t, "away", pid)
		}
		ask(t, "remote", "place", pid, "env", "-i", "SECRET=placed", "sleep", "100009")
		within(t, 5*time.Second, func() error {
			if _, err := os.ReadDir("/proc"); err != nil { // whose home is not there is found by its node
				return err
			}
			if got := comm(); got != "sleep\n" {
				return fmt.Errorf("it is %q", got)
			}
			return nil
		})
		for name, want := range map[string]string{"environ": "SECRET=placed\x00", "where": "2\n", "cmdline": "sleep\x00100009\x00"} {
			within(t, 5*time.Second, func() error { // its arguments come a moment after its name
				if b, err := os.ReadFile(file(c.pid, name)); err != nil || string(b) != want {
					return fmt.Errorf("%s is %q, %w", name, b, err)
				}
				return nil
			})
		}
		if to, err := os.Readlink(file(c.pid, "exe")); err != nil || !strings.HasSuffix(to, "/sleep") {
			t.Errorf("exe leads to %q, %v", to, err)
		}
		if got := strings.TrimSpace(output(t, "ps", "-o", "args=", "-p", pid)); got != "sleep 100009" {
			t.Errorf("ps shows %q", got)
		}
		out, err := exec.Command("ps", "-e", "-o", "pid=").Output()
		if n := bytes.Count(out, []byte(pid)); err != nil || n != 1 {
			t.Errorf("it is listed %d times, %v", n, err)
		}
		killThere(t, c.pid)
		within(t, 5*time.Second, func() error {
			if got := comm(); got != c.before {
				return fmt.Errorf("after its end it is %q, want %q", got, c.before)
			}
			return nil
		})
	}
}
