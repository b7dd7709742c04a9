package sys

import (
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const siginfoTest = "SSI_SIGINFO_TEST"

// TestNotifyInfo has another process tell which signals it got, and from whom.
func TestNotifyInfo(t *testing.T) {
	sigs := []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGSEGV, unix.Signal(40)}
	if os.Getenv(siginfoTest) != "" {
		told := os.NewFile(3, "told")
		if err := NotifyInfo(told, sigs); err != nil {
			t.Fatal(err)
		}
		fault := func() (caught any) {
			defer func() { caught = recover() }()
			return *(*int)(nil) //nolint:govet // on purpose: what nobody sent is the runtime's, as before
		}
		if fault() == nil {
			t.Fatal("a fault is not seen")
		}
		_, _ = told.Write([]byte("r"))
		for {
			make([][]byte, 1)[0] = make([]byte, 1<<16) // signals may come at any moment, and during garbage collection
			if _, err := os.Stdin.Read(make([]byte, 1)); err == io.EOF {
				os.Exit(0)
			}
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("sh", "-c", `trap "" INT; exec "$0" -test.run=TestNotifyInfo`, os.Args[0])
	cmd.Env = append(os.Environ(), siginfoTest+"=1")
	cmd.ExtraFiles = []*os.File{w}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	defer func() { _ = in.Close(); _ = cmd.Wait() }()
	_ = r.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(pidfd) }()
	self := Siginfo{PID: int32(os.Getpid()), UID: uint32(os.Getuid())}
	next := func() Siginfo {
		t.Helper()
		b := make([]byte, SiginfoSize)
		if _, err := io.ReadFull(r, b); err != nil {
			t.Fatal(err)
		}
		return DecodeSiginfo(b)
	}
	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGSEGV} { // the first was ignored
		if err := unix.Kill(cmd.Process.Pid, sig); err != nil {
			t.Fatal(err)
		}
		if got := next(); got.Signal != sig {
			t.Fatalf("%+v, want %s", got, sig)
		}
	}
	for i := range 200 {
		term := self
		term.Signal = unix.SIGTERM
		if err := unix.Kill(cmd.Process.Pid, unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if got := next(); got.Signal != term.Signal || got.Code != 0 || got.PID != term.PID || got.UID != term.UID {
			t.Fatalf("%+v, want %+v", got, term)
		}
		queued := Siginfo{Signal: 40, Code: -1, PID: int32(i), UID: 7, Value: uint64(i) << 40}
		if err := SendInfo(pidfd, &queued); err != nil {
			t.Fatal(err)
		}
		if got := next(); got != queued {
			t.Fatalf("%+v, want %+v", got, queued)
		}
	}
}
