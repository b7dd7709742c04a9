package boot

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/keeper"
	"ssi/internal/pty"
)

// linkToPID1 gives this process what PID 1 gives a role.
func linkToPID1(t *testing.T) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fds[1]) })
	t.Setenv(keeper.FDEnv, strconv.Itoa(fds[0]))
}

// A login does not depend on the cluster: whatever is wrong with the process space,
// the answer is that the session is to be one of this machine.
func TestSpaceFails(t *testing.T) {
	yes := func(context.Context) (bool, string) { return true, "" }
	hangs := make(chan struct{})
	defer close(hangs)
	for _, c := range []struct {
		name  string
		space Space
		want  string
	}{
		{"none", Space{}, errNotReady.Error()},
		{"no node", Space{Ready: func(context.Context) (bool, string) { return false, "" }, Enter: func(*keeper.Client) error { return nil }}, errNotReady.Error()},
		{"no daemon", Space{
			Ready: func(ctx context.Context) (bool, string) { <-ctx.Done(); return false, "the daemon hangs" },
			Enter: func(*keeper.Client) error { return nil },
		}, "the daemon hangs"},
		{"refused", Space{Ready: yes, Enter: func(*keeper.Client) error { return errors.New("no view") }}, "no view"},
		{"hangs", Space{Ready: yes, limit: 50 * time.Millisecond, Enter: func(*keeper.Client) error { <-hangs; return nil }}, "cannot be entered within 50ms"},
	} {
		t.Run(c.name, func(t *testing.T) {
			linkToPID1(t)
			mark := t.TempDir() + "/started"
			pid, err := c.space.start(t.Context(), slog.New(slog.DiscardHandler), []string{"/bin/sh", "-c", "echo >" + mark}, nil, []uintptr{0, 1, 2})
			if pid != 0 || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%d, %v; want %q", pid, err, c.want)
			}
			if _, err := os.Stat(mark); err == nil {
				t.Error("it was started all the same")
			}
		})
	}
	if _, err := (Space{}).start(t.Context(), slog.New(slog.DiscardHandler), nil, nil, nil); err == nil {
		t.Error("without PID 1")
	}
}

// A session in the process space leads a session of its own that has the terminal.
func TestSpaceStarts(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("skipped: needs root: a session takes the terminal of another one")
	}
	linkToPID1(t)
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer slave.Close()
	space := Space{
		Ready: func(context.Context) (bool, string) { return true, "" },
		Enter: func(k *keeper.Client) error {
			if k == nil {
				return errors.New("no connection to PID 1")
			}
			return unix.Chdir("/proc") // of this thread alone
		},
	}
	script := `set -- $(cat /proc/$$/stat); echo "leader $(($1 == $6)), on the terminal $(($7 != 0)), in $PWD, FOO=$FOO" >/dev/tty; exec sleep 0`
	pid, err := space.start(t.Context(), slog.New(slog.DiscardHandler), []string{"/bin/sh", "-c", script}, []string{"FOO=bar", "PATH=/bin:/usr/bin"}, []uintptr{slave.Fd(), slave.Fd(), slave.Fd()})
	if err != nil {
		t.Fatal(err)
	}
	wait(pid)
	b := make([]byte, 1000)
	if err := master.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := master.Read(b)
	if got := string(b[:n]); err != nil || got != "leader 1, on the terminal 1, in /, FOO=bar\r\n" {
		t.Errorf("%q, %v", got, err)
	}
	if wd, _ := os.Getwd(); strings.HasPrefix(wd, "/proc") {
		t.Errorf("the process is in %s", wd)
	}
}
