package keeper

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"ssi/internal/proc"
)

// pair is a client and PID 1's end of its connection.
func pair(t *testing.T, onExit func(proc.Exit)) (*Client, *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(os.NewFile(uintptr(fds[0]), "client"), slog.New(slog.DiscardHandler), onExit)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[1]), "pid 1")
	conn, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return c, conn.(*net.UnixConn)
}

func TestExitsAndGarbage(t *testing.T) {
	defer goleak.VerifyNone(t)
	got := make(chan proc.Exit, 1)
	c, far := pair(t, func(e proc.Exit) { got <- e })
	want := proc.Exit{PID: 5, Status: 7 << 8, UserTime: 1, SystemTime: 2, MaxRSS: 3}
	for _, b := range [][]byte{{'?'}, {tagExit, 1}, Answer(Done), AppendExit(nil, want)} {
		if _, err := far.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case e := <-got:
		if e != want {
			t.Errorf("%+v", e)
		}
	case <-time.After(10 * time.Second):
		t.Error("no report")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestPID1IsGone(t *testing.T) {
	defer goleak.VerifyNone(t)
	c, far := pair(t, func(proc.Exit) {})
	_ = far.Close()
	select {
	case <-c.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the end is not noticed")
	}
	if _, err := c.Take("x"); !errors.Is(err, ErrLost) {
		t.Errorf("take: %v", err)
	}
	_ = c.Close()
}

func TestOpenNeedsPID1(t *testing.T) {
	t.Setenv(FDEnv, "")
	_ = os.Unsetenv(FDEnv)
	if _, err := Open(slog.Default(), nil); err == nil {
		t.Error("opened without PID 1")
	}
}

func TestSameAddr(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr := l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	for a, want := range map[string]bool{addr: true, "127.0.0.2:" + port: false, ":" + port: false, "127.0.0.1:1": false, "nonsense": false} {
		if got := sameAddr(l.Addr(), "tcp", a); got != want {
			t.Errorf("%s: %v", a, got)
		}
	}
}

func FuzzExit(f *testing.F) {
	f.Add(AppendExit(nil, proc.Exit{PID: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == exitLen && b[0] == tagExit {
			if e := decodeExit(b); string(AppendExit(nil, e)) != string(b) {
				t.Errorf("%+v", e)
			}
		}
	})
}
