package spawn

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/proc"
	"ssi/internal/sys"
)

// TestMain: the test binary is a session leader, too. The role itself is tested
// below PID 1, in vproc/rexec.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == SessionRole {
		os.Exit(RunSession(os.Args[2:]))
	}
	os.Exit(m.Run())
}

func TestReply(t *testing.T) {
	pid, f, err := decodeReply(appendReply(nil, 77, nil)[lenSize:])
	if pid != 77 || f != nil || err != nil {
		t.Error(pid, f, err)
	}
	want := &proc.Failure{Op: "exec", Path: "/x", Errno: unix.ENOENT}
	if pid, f, err = decodeReply(appendReply(nil, 0, want)[lenSize:]); pid != 0 || err != nil || *f != *want {
		t.Error(pid, f, err)
	}
	for _, bad := range []string{"", "\x00\x00\x00\x00", "\x00\x00\x00\x01x", "\xff\xff\xff\xff"} {
		if _, _, err := decodeReply([]byte(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestClientWithoutARole(t *testing.T) {
	spec := &proc.Spec{Argv: []string{"true"}, Dir: "/"}
	c := NewClient(filepath.Join(t.TempDir(), "none"))
	if _, _, err := c.Spawn(context.Background(), spec, nil); !errors.Is(err, unix.ENOENT) {
		t.Errorf("no socket: %v", err)
	}
	// A role that hangs: the deadline ends the wait, and the next caller is served.
	path := filepath.Join(t.TempDir(), "hung")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 5)); err != nil {
		t.Fatal(err)
	}
	c = NewClient(path)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := c.Spawn(ctx, spec, []*os.File{null, null, null}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a hung role: %v", err)
	}
	spec.Env = []string{strings.Repeat("x", proc.MaxSpec)}
	if _, _, err := c.Spawn(context.Background(), spec, nil); !errors.Is(err, proc.ErrTooLong) {
		t.Errorf("too long: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, _, err := c.Spawn(context.Background(), &proc.Spec{Argv: []string{"true"}, Dir: "/"}, nil); err == nil {
		t.Error("served after Close")
	}
}

// TestStrangersAreRefused connects to the role as another user.
func TestStrangersAreRefused(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it changes the user of a socket's peer")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 5),
		os.Chmod(path, 0o666), os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	peer, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(peer)
	if err := sys.As(sys.Credentials{UID: 4242, GID: 4242}, func() error {
		return unix.Connect(peer, &unix.SockaddrUnix{Name: path})
	}); err != nil {
		t.Fatal(err)
	}
	c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(c)
	s := &server{log: slog.New(slog.DiscardHandler)}
	if err := s.connection(c); err == nil || !strings.Contains(err.Error(), "only root") {
		t.Errorf("%v", err)
	}
}

func FuzzReply(f *testing.F) {
	f.Add(appendReply(nil, 0, &proc.Failure{Op: "a", Path: "b", Errno: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if pid, fail, err := decodeReply(b); err == nil && (pid > 0) == (fail != nil) {
			t.Fatal(pid, fail)
		}
	})
}
