package sys

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds every wait of the tests.
const patience = 20 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// freePID is a PID that no process has: half of all PIDs from that of this one,
// which was given out not long ago, and no other run of the tests has the same.
func freePID(t *testing.T) int {
	t.Helper()
	const reserved = 300 // kernel/pid.c
	var limit int
	b, err := os.ReadFile("/proc/sys/kernel/pid_max")
	if err == nil {
		_, err = fmt.Sscan(string(b), &limit)
	}
	if err != nil {
		t.Fatal(err)
	}
	return reserved + (os.Getpid()+limit/2)%(limit-reserved)
}

func words(b []byte) []uint32 {
	var w []uint32
	for ; len(b) >= 4; b = b[4:] {
		w = append(w, binary.NativeEndian.Uint32(b))
	}
	return w
}

// The deputy has the identity and the number of the caller.
func TestDeputyIdentity(t *testing.T) {
	needRoot(t)
	pid := freePID(t)
	var uids, gids [12]byte
	groups := make([]byte, 16)
	header, caps := make([]byte, 8), make([]byte, 24)
	binary.NativeEndian.PutUint32(header, unix.LINUX_CAPABILITY_VERSION_3)
	at := func(b []byte) []Memory {
		return []Memory{{Arg: 0, Data: b[0:4]}, {Arg: 1, Data: b[4:8]}, {Arg: 2, Data: b[8:12]}}
	}
	calls := []Call{
		{Nr: unix.SYS_GETRESUID, Mem: at(uids[:])},
		{Nr: unix.SYS_GETRESGID, Mem: at(gids[:])},
		{Nr: unix.SYS_GETGROUPS, Args: [6]uint64{4}, Mem: []Memory{{Arg: 1, Data: groups}}},
		{Nr: unix.SYS_CAPGET, Mem: []Memory{{Arg: 0, Data: header}, {Arg: 1, Data: caps}}},
		{Nr: unix.SYS_GETPID},
	}
	const kill = 1 << unix.CAP_KILL
	if err := Deputize(Identity{PID: pid, UID: 4242, EUID: 4243, GID: 4244, EGID: 4245, Groups: []uint32{7, 8}, Caps: kill}, calls); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name      string
		got, want []uint32
	}{
		{"users", words(uids[:]), []uint32{4242, 4243, 4243}},
		{"groups", words(gids[:]), []uint32{4244, 4245, 4245}},
		{"supplementary groups", words(groups)[:calls[2].Ret], []uint32{7, 8}},
		{"capabilities", words(caps), []uint32{kill, kill, 0, 0, 0, 0}},
		{"PID", []uint32{uint32(calls[4].Ret)}, []uint32{uint32(pid)}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: %d, want %d", c.name, c.got, c.want)
		}
	}
	if unix.Getuid() != 0 || unix.Geteuid() != 0 {
		t.Error("the identity of this process changed")
	}
}

func TestDeputyIsJudgedByTheKernel(t *testing.T) {
	needRoot(t)
	mine, other, roots := sleeper(t, 4242), sleeper(t, 4243), sleeper(t, 0)
	for _, c := range []struct {
		name      string
		uid, euid uint32
		caps      uint64
		pid       int
		want      unix.Errno
	}{
		{"own", 4242, 4242, 0, mine, 0},
		{"own, by the real user", 4242, 4244, 0, mine, 0},
		{"own, by the effective user", 4244, 4242, 0, mine, 0},
		{"of another user", 4242, 4242, 0, other, unix.EPERM},
		{"of another user, with CAP_KILL", 4242, 4242, 1 << unix.CAP_KILL, other, 0},
		{"root's", 4242, 4242, 0, roots, unix.EPERM},
		{"root's, by root without capabilities", 0, 0, 0, roots, 0},
		{"of a user, by root without capabilities", 0, 0, 0, mine, unix.EPERM},
		{"nobody", 4242, 4242, 0, 1 << 22, unix.ESRCH},
	} {
		calls := []Call{{Nr: unix.SYS_KILL, Args: [6]uint64{uint64(c.pid), 0}}}
		err := Deputize(Identity{UID: c.uid, EUID: c.euid, GID: 4242, EGID: 4242, Caps: c.caps}, calls)
		if err != nil || calls[0].Errno() != c.want {
			t.Errorf("%s: %v, %v, want %v", c.name, err, calls[0].Errno(), c.want)
		}
	}
}

// si_pid and si_uid are those of the caller.
func TestDeputySender(t *testing.T) {
	needRoot(t)
	pid := freePID(t)
	cmd := exec.Command("python3", "-uc", `
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print("ready")
i = signal.sigwaitinfo([signal.SIGUSR1])
print(i.si_code, i.si_pid, i.si_uid)`)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	r := bufio.NewReader(out)
	if line, err := r.ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	calls := []Call{{Nr: unix.SYS_KILL, Args: [6]uint64{uint64(cmd.Process.Pid), uint64(unix.SIGUSR1)}}}
	if err := Deputize(Identity{PID: pid, UID: 4242, EUID: 0, GID: 4242, EGID: 4242}, calls); err != nil || calls[0].Ret != 0 {
		t.Fatalf("%v, %v", err, calls[0].Ret)
	}
	want := fmt.Sprintf("0 %d 4242\n", pid) // SI_USER
	if line, err := r.ReadString('\n'); line != want {
		t.Errorf("%q, %v, want %q", line, err, want)
	}
}

// A number in use is left out, and what may not be taken ends the deputy before
// its first call.
func TestDeputyIdentityRefused(t *testing.T) {
	needRoot(t)
	calls := []Call{{Nr: unix.SYS_GETPID}}
	if err := Deputize(Identity{Self: true, PID: os.Getpid()}, calls); err != nil || calls[0].Ret == int64(os.Getpid()) || calls[0].Ret <= 0 {
		t.Errorf("a PID in use: %v, %d", err, calls[0].Ret)
	}
	const minusOne = 1<<32 - 1 // it would leave the deputy what this process is
	for _, who := range []Identity{
		{UID: minusOne, EUID: 1}, {UID: 1, EUID: minusOne}, {UID: 1, EUID: 1, GID: minusOne}, {UID: 1, EUID: 1, EGID: minusOne},
	} {
		if err := Deputize(who, calls); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%+v: %v, want EINVAL", who, err)
		}
	}
	calls[0].Ret = 0
	if err := Deputize(Identity{UID: 1, EUID: 1, Caps: 1 << 63}, calls); err != nil || calls[0].Ret <= 0 {
		t.Errorf("capabilities that do not exist: %v, %d", err, calls[0].Ret)
	}
	if err := Deputize(Identity{UID: 1, EUID: 1, Groups: slices.Repeat([]uint32{minusOne}, 3)}, calls); !errors.Is(err, unix.EINVAL) || calls[0].Ret != NotMade {
		t.Errorf("groups that cannot be: %v, %d", err, calls[0].Ret)
	}
	if err := Deputize(Identity{Self: true}, nil); !errors.Is(err, unix.E2BIG) {
		t.Errorf("no call: %v", err)
	}
	if err := Deputize(Identity{Self: true}, make([]Call, MaxCalls+1)); !errors.Is(err, unix.E2BIG) {
		t.Errorf("too many calls: %v", err)
	}
}

// waiting starts a deputy that waits for a byte from the pipe and then asks for
// its number.
func waiting(t *testing.T, pid int) (calls []Call, release *os.File, done chan error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	fd := r.Fd() // blocking from now on
	calls = []Call{
		{Nr: unix.SYS_READ, Args: [6]uint64{uint64(fd), 0, 1}, Mem: []Memory{{Arg: 1, Data: make([]byte, 1)}}},
		{Nr: unix.SYS_GETPID},
	}
	done = make(chan error, 1)
	go func() { done <- Deputize(Identity{Self: true, PID: pid}, calls) }()
	eventually(t, "the deputy", func() bool { return unix.Kill(pid, 0) == nil })
	return calls, w, done
}

func end(t *testing.T, done chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		t.Fatal("the deputy does not end")
		return nil
	}
}

// Nobody holds up a deputy, or does more harm than to end it.
func TestDeputyUnderAttack(t *testing.T) {
	needRoot(t)
	pid := freePID(t)
	t.Run("stopped", func(t *testing.T) {
		calls, w, done := waiting(t, pid)
		for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGUSR1, unix.SIGSEGV, unix.SIGSTOP} {
			if err := unix.Kill(pid, sig); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.Write([]byte{7}); err != nil {
			t.Fatal(err)
		}
		if err := end(t, done); err != nil || calls[1].Ret != int64(pid) || calls[0].Mem[0].Data[0] != 7 {
			t.Errorf("%v, %+v", err, calls)
		}
	})
	t.Run("killed", func(t *testing.T) {
		calls, _, done := waiting(t, pid)
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := end(t, done); !errors.Is(err, ErrDeputyLost) || calls[1].Ret != NotMade {
			t.Errorf("%v, %+v", err, calls)
		}
		if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
			t.Errorf("the deputy is still there: %v", err)
		}
	})
}

const orphanEnv = "SSI_TEST_ORPHAN" // file, descriptor to read from, PID

// A deputy outlives the process that made it, and its result stays.
func TestDeputyOutlivesItsMaker(t *testing.T) {
	needRoot(t)
	if args := os.Getenv(orphanEnv); args != "" {
		makeOrphan(t, args)
		return
	}
	pid := freePID(t)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil { // the orphan becomes ours
		t.Fatal(err)
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) }()
	path := filepath.Join(t.TempDir(), "kept")
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestDeputyOutlivesItsMaker$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d", orphanEnv, path, 3, pid))
	cmd.ExtraFiles = []*os.File{r}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	eventually(t, "the deputy", func() bool { return unix.Kill(pid, 0) == nil })
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if _, err := w.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	eventually(t, "the result", func() bool {
		b, err := os.ReadFile(path)
		return err == nil && int64(binary.NativeEndian.Uint64(b[8:])) == int64(pid)
	})
	if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != nil {
		t.Errorf("wait for the orphan: %v", err)
	}
}

func makeOrphan(t *testing.T, args string) {
	var path string
	var fd, pid int
	if _, err := fmt.Sscan(args, &path, &fd, &pid); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	m, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Error(Deputize(Identity{Self: true, PID: pid}, []Call{
		{Nr: unix.SYS_READ, Args: [6]uint64{uint64(fd), 0, 1}, Mem: []Memory{{Arg: 1, Data: m[:1], Fixed: true}}},
		{Nr: unix.SYS_GETPID, Kept: m[8:16]},
	}))
}

func TestDeputiesAtOnce(t *testing.T) {
	needRoot(t)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			uid := uint32(5000 + i)
			for range 50 {
				calls := []Call{{Nr: unix.SYS_GETUID}, {Nr: unix.SYS_GETEUID}}
				if err := Deputize(Identity{UID: uid, EUID: uid + 100}, calls); err != nil || calls[0].Ret != int64(uid) || calls[1].Ret != int64(uid+100) {
					t.Errorf("%v, %d and %d, want %d and %d", err, calls[0].Ret, calls[1].Ret, uid, uid+100)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestMake(t *testing.T) {
	name := make([]byte, 390)
	c := Call{Nr: unix.SYS_UNAME, Mem: []Memory{{Arg: 0, Data: name}}}
	if err := Make(&c); err != nil || c.Ret != 0 || !strings.HasPrefix(string(name), "Linux\x00") {
		t.Errorf("%v, %d, %q", err, c.Ret, name[:8])
	}
	c = Call{Nr: unix.SYS_KILL, Args: [6]uint64{1 << 22, 0}}
	if err := Make(&c); err != nil || c.Errno() != unix.ESRCH {
		t.Errorf("%v, %v", err, c.Errno())
	}
}

func BenchmarkDeputy(b *testing.B) {
	if os.Getuid() != 0 {
		b.Skip("needs root: it changes user IDs")
	}
	for _, c := range []struct {
		name string
		who  Identity
	}{
		{"self", Identity{Self: true}},
		{"user", Identity{UID: 4242, EUID: 4242, GID: 4242, EGID: 4242}},
		{"user and PID", Identity{UID: 4242, EUID: 4242, GID: 4242, EGID: 4242, PID: 30000}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				start := time.Now()
				if err := Deputize(c.who, []Call{{Nr: unix.SYS_KILL, Args: [6]uint64{uint64(os.Getpid())}}}); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			for _, p := range []int{50, 99} {
				b.ReportMetric(float64(took[len(took)*p/100].Nanoseconds())/1000, fmt.Sprintf("p%d-µs", p))
			}
		})
	}
}
