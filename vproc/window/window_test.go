package window

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
)

func TestNext(t *testing.T) {
	first, end := int64(5<<15), int64(6<<15)
	for _, c := range []struct {
		last          int64
		rewind, stray bool
	}{
		{1, true, true}, {first - 2, true, true}, {first - 1, true, false}, {first, true, false},
		{first + 298, true, false}, {first + 299, false, false}, {end - margin - 1, false, false},
		{end - margin, true, false}, {end - 1, true, false}, {end, true, true}, {4194303, true, true},
	} {
		to, rewind, stray := next(c.last, first, end)
		if rewind != c.rewind || stray != c.stray || rewind && to != first+299 {
			t.Errorf("%d: %d %v %v", c.last, to, rewind, stray)
		}
	}
}

// The rest runs in a PID namespace: this binary again, as its process 1.
func TestMain(m *testing.M) {
	if os.Getenv("WINDOW_TEST") != "" {
		os.Exit(inside())
	}
	os.Exit(m.Run())
}

func inside() int {
	fail := func(v ...any) int { fmt.Println(append([]any{"FAIL"}, v...)...); return 1 }
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fail(err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fail(err)
	}
	const node = id.Node(7)
	first, end := node.Window()
	w, err := Start(slog.New(slog.NewTextHandler(os.Stdout, nil)), node)
	if err != nil {
		return fail(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fail(err)
	}
	fork := func() (int, error) {
		pid, err := syscall.ForkExec("/bin/true", []string{"true"}, &syscall.ProcAttr{Files: []uintptr{null.Fd(), null.Fd(), null.Fd()}})
		if err == nil {
			_, err = syscall.Wait4(pid, nil, 0, nil)
		}
		return pid, err
	}
	pid, err := fork()
	if err != nil || pid < int(first)+reserved || pid >= int(end) {
		return fail("the first PID is", pid, err)
	}
	// Near the margin: the watcher must start the window anew.
	if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(int(end)-margin-5)), 0); err != nil {
		return fail(err)
	}
	before := w.Rewinds()
	for limit := time.Now().Add(10 * time.Second); w.Rewinds() == before; {
		if pid, err := fork(); err != nil || id.PID(pid).Home() != node {
			return fail("a stray:", pid, err)
		}
		if time.Now().After(limit) {
			return fail("the window was not started anew")
		}
	}
	if pid, err = fork(); err != nil || pid >= int(end)-margin {
		return fail("after the rewind:", pid, err)
	}
	if w.Strays() != 0 {
		return fail("strays:", w.Strays())
	}
	// Somebody leaves the window: it is seen and undone.
	if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte("1000"), 0); err != nil {
		return fail(err)
	}
	for limit := time.Now().Add(10 * time.Second); w.Strays() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			return fail("the stray was not counted")
		}
	}
	if pid, err = fork(); err != nil || id.PID(pid).Home() != node {
		return fail("after the stray:", pid, err)
	}
	w.Stop()
	fmt.Println("OK")
	return 0
}

func TestInNamespace(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes a PID namespace")
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "WINDOW_TEST=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	s := bufio.NewScanner(strings.NewReader(string(out)))
	ok := false
	for s.Scan() {
		ok = ok || s.Text() == "OK"
	}
	if err != nil || !ok {
		t.Fatalf("%v\n%s", err, out)
	}
	if b, err := os.ReadFile("/proc/sys/kernel/pid_max"); err != nil || strings.TrimSpace(string(b)) == strconv.Itoa(pidMax) {
		t.Logf("pid_max of this namespace is %s: %v", b, err)
	}
}

func TestNoWindow(t *testing.T) {
	for _, n := range []id.Node{0, 128} {
		if _, err := Start(slog.Default(), n); err == nil {
			t.Errorf("node %d has a window", n)
		}
	}
}

func TestPause(t *testing.T) {
	_, end := id.Node(2).Window()
	for _, test := range []struct {
		left       int64
		processors int
		want       time.Duration
	}{
		{32_468, 2, 231_914_285 * time.Nanosecond},
		{14_000, 2, 100 * time.Millisecond},
		{32_468, 1, maxPoll},
		{100, 2, minPoll},
		{32_468, 128, minPoll},
	} {
		if got := pause(int64(end)-test.left, int64(end), test.processors); got != test.want {
			t.Errorf("%d left, %d processors: %v, want %v", test.left, test.processors, got, test.want)
		}
	}
}
