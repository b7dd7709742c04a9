package sys

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it changes user IDs")
	}
}

// sleeper is a process of user uid that lives until the test ends.
func sleeper(t *testing.T, uid uint32) int {
	t.Helper()
	cmd := exec.Command("/bin/sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd.Process.Pid
}

func TestAsIsJudgedByTheKernel(t *testing.T) {
	needRoot(t)
	mine, other, roots := sleeper(t, 4242), sleeper(t, 4243), sleeper(t, 0)
	user := Credentials{UID: 4242, GID: 4242, Groups: []uint32{7, 8}}
	for _, c := range []struct {
		name string
		as   Credentials
		pid  int
		want error
	}{
		{"own", user, mine, nil},
		{"other user", user, other, unix.EPERM},
		{"root's", user, roots, unix.EPERM},
		{"init", user, 1, unix.EPERM},
		{"root: any", Credentials{}, other, nil},
	} {
		if err := As(c.as, func() error { return unix.Kill(c.pid, 0) }); !errors.Is(err, c.want) || (err != nil) != (c.want != nil) {
			t.Errorf("%s: kill: %v, want %v", c.name, err, c.want)
		}
	}
}

// The thread must have the caller's effective identity, no capability, and an
// identity as a target that the caller has no power over.
func TestAsIdentityOfTheThread(t *testing.T) {
	needRoot(t)
	var status []byte
	err := As(Credentials{UID: 4242, GID: 4243, Groups: []uint32{7, 8}}, func() error {
		b, err := os.ReadFile("/proc/thread-self/status")
		status = b
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Uid:\t4294967294\t4242\t0\t4242", "Gid:\t4243\t4243\t4243\t4243", "Groups:\t7 8", "CapEff:\t0000000000000000"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("status of the thread lacks %q:\n%s", want, status)
		}
	}
}

// A user must not be able to kill the daemon through the thread that acts for
// the user.
func TestAsThreadIsNotTheCallersToKill(t *testing.T) {
	needRoot(t)
	user := Credentials{UID: 4242, GID: 4242}
	err := As(user, func() error {
		tid := strconv.Itoa(unix.Gettid())
		cmd := exec.Command("/bin/sh", "-c", "kill -0 "+tid+" 2>&1; kill -0 "+strconv.Itoa(os.Getpid())+" 2>&1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4242, Gid: 4242}}
		// This thread may not change to the user and back: start the shell from another one.
		out := make(chan []byte)
		go func() { b, _ := cmd.CombinedOutput(); out <- b }()
		if b := <-out; bytes.Count(b, []byte("not permitted")) != 2 {
			t.Errorf("kill of the daemon's threads by the user: %q, want two refusals", b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAsLeavesTheOthersAlone(t *testing.T) {
	needRoot(t)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			uid := uint32(5000 + i)
			err := As(Credentials{UID: uid, GID: uid}, func() error {
				if e, _, _ := unix.RawSyscall(unix.SYS_GETEUID, 0, 0, 0); uint32(e) != uid {
					t.Errorf("thread has euid %d, want %d", e, uid)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile("/proc/self/task/" + task.Name() + "/status")
		if err != nil {
			continue // the thread ended
		}
		if !bytes.Contains(b, []byte("Uid:\t0\t0\t0\t0")) && !bytes.Contains(b, []byte("Uid:\t4294967294")) {
			t.Errorf("thread %s changed its user:\n%s", task.Name(), b)
		}
	}
}

func TestReadFileAt(t *testing.T) {
	dir := t.TempDir()
	long := bytes.Repeat([]byte("0123456789"), 1000)
	if err := os.WriteFile(dir+"/long", long, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/empty", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, c := range []struct {
		path string
		size int
		want []byte
		err  error
	}{
		{"long\x00", 20000, long, nil},
		{"long\x00", 5000, long[:5000], nil},
		{"empty\x00", 10, nil, nil},
		{"none\x00", 10, nil, unix.ENOENT},
		{"long", 10, nil, unix.EINVAL},
		{"", 10, nil, unix.EINVAL},
		{"long\x00", 0, nil, unix.EINVAL},
	} {
		buf := make([]byte, c.size)
		n, err := ReadFileAt(fd, []byte(c.path), buf)
		if !errors.Is(err, c.err) || !bytes.Equal(buf[:n], c.want) {
			t.Errorf("%q into %d bytes: %d bytes, %v", c.path, c.size, n, err)
		}
	}
	path, buf := []byte("long\x00"), make([]byte, 100)
	if got := testing.AllocsPerRun(100, func() { _, _ = ReadFileAt(fd, path, buf) }); got != 0 {
		t.Errorf("%v allocations a call, want none", got)
	}
}

func BenchmarkAs(b *testing.B) {
	for b.Loop() {
		_ = As(Credentials{UID: 4242, GID: 4242}, func() error { return unix.Kill(1, 0) })
	}
}
