package sys

import (
	"encoding/binary"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hollowTime bounds what takes a hollow process microseconds.
const hollowTime = 20 * time.Second

// startHollow starts a hollow process as a child of this one.
func startHollow(t *testing.T) (pid int, a Arena, reports *os.File) {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("there are no hollow processes on this processor")
	}
	fd, err := unix.MemfdCreate("hollow", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	program := os.NewFile(uintptr(fd), "hollow")
	defer program.Close()
	if _, err := program.Write(Hollow()); err != nil {
		t.Fatal(err)
	}
	afd, err := unix.MemfdCreate("arena", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	arena := os.NewFile(uintptr(afd), "arena")
	defer arena.Close()
	if err := arena.Truncate(ArenaSize); err != nil {
		t.Fatal(err)
	}
	if a, err = unix.Mmap(afd, 0, ArenaSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(a) })
	a.Reset()
	reports, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cmd := exec.Command("/proc/self/fd/" + strconv.Itoa(fd))
	cmd.Stdin, cmd.Stdout = arena, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); _ = reports.Close() })
	if err := a.Await(First, hollowTime); err != nil {
		t.Fatal("it does not start: ", err)
	}
	return cmd.Process.Pid, a, reports
}

func carryOut(t *testing.T, pid int, a Arena, orders ...Order) {
	t.Helper()
	n := a.Give(pid, orders)
	if err := unix.Kill(pid, unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if err := a.Await(n, hollowTime); err != nil {
		t.Fatal(err)
	}
}

func TestHollowOrders(t *testing.T) {
	pid, a, _ := startHollow(t)
	carryOut(t, pid, a,
		Order{Nr: unix.SYS_GETPID},
		Order{Nr: unix.SYS_CLOSE, Args: [6]uint64{99}},
		Order{Nr: unix.SYS_GETPPID, After: unix.EBADF},
		Order{Nr: unix.SYS_GETPPID, After: unix.EBADF},
		Order{Nr: unix.SYS_CLOSE, Args: [6]uint64{99}, Flags: Needed},
		Order{Nr: unix.SYS_GETPID},
	)
	for i, want := range []struct {
		value int64
		err   unix.Errno
		ran   bool
	}{{int64(pid), 0, true}, {0, unix.EBADF, true}, {int64(os.Getpid()), 0, true}, {0, 0, false}, {0, unix.EBADF, true}, {0, 0, false}} {
		if v, err, ran := a.Result(i); v != want.value || err != want.err || ran != want.ran {
			t.Errorf("order %d: %d, %v, %v; want %v", i, v, err, ran, want)
		}
	}
	// It survives every signal but the two that cannot be blocked.
	for s := unix.Signal(1); s < 32; s++ {
		if s != unix.SIGKILL && s != unix.SIGSTOP {
			_ = unix.Kill(pid, s)
		}
	}
	carryOut(t, pid, a, Order{Nr: unix.SYS_GETPID})
	if v, _, _ := a.Result(0); v != int64(pid) {
		t.Error("after all signals: ", v)
	}
}

// A child of a hollow process is hollow, is ordered by itself, and its end is
// reported.
func TestHollowChildren(t *testing.T) {
	pid, a, reports := startHollow(t)
	args := CloneArgs(0, unix.SIGCHLD, 0, 0)
	copy(a[ArenaData:], args)
	for _, end := range []unix.WaitStatus{9 << 8, 0} {
		carryOut(t, pid, a,
			Order{Nr: unix.SYS_CLONE3, Args: [6]uint64{ArenaAddr + ArenaData, uint64(len(args))}, Flags: Forks | Needed},
			Order{Nr: unix.SYS_GETPID}, Order{Nr: unix.SYS_GETPPID})
		child, _, _ := a.Result(1)
		if parent, _, _ := a.Result(2); child == int64(pid) || parent != int64(pid) {
			t.Fatalf("child %d of %d, want one of %d", child, parent, pid)
		}
		if end.ExitStatus() > 0 {
			a.Give(int(child), []Order{{Nr: unix.SYS_EXIT_GROUP, Args: [6]uint64{uint64(end.ExitStatus())}}})
			_ = unix.Kill(int(child), unix.SIGUSR1)
		} else {
			end = unix.WaitStatus(unix.SIGKILL)
			_ = unix.Kill(int(child), unix.SIGKILL)
		}
		b := make([]byte, ReportSize)
		_ = reports.SetReadDeadline(time.Now().Add(hollowTime))
		if _, err := reports.Read(b); err != nil {
			t.Fatal(err)
		}
		if r := DecodeReport(b); int64(r.PID) != child || r.Status != end || r.Usage.Minflt == 0 {
			t.Errorf("report %+v of child %d, want status %#x", r, child, end)
		}
	}
	// A process that cannot be made: the parent says so.
	binary.NativeEndian.PutUint64(a[ArenaData:], 1<<63)
	carryOut(t, pid, a, Order{Nr: unix.SYS_CLONE3, Args: [6]uint64{ArenaAddr + ArenaData, uint64(len(args))}, Flags: Forks | Needed}, Order{Nr: unix.SYS_GETPID})
	if _, err, _ := a.Result(0); err != unix.EINVAL {
		t.Error("impossible clone3: ", err)
	}
	if _, _, ran := a.Result(1); ran {
		t.Error("orders went on after it")
	}
}
