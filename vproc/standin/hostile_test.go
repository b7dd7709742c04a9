package standin

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"ssi/internal/sys"
)

// A stand-in that does not do what it is ordered is ended, and once its number is
// free the next process has its place. It takes orderTime.
func TestStopped(t *testing.T) {
	k := start(t)
	c := k.create(shell(home(40001, 40001), "read x"))
	if err := unix.Kill(40000, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	_, err := k.try(shell(home(40002, 40002), "true"))
	var u *Unplaceable
	if !errors.As(err, &u) {
		t.Fatalf("with a parent that is stopped: %v", err)
	}
	if k.m.StandIn(40000) || unix.Kill(40002, 0) != unix.ESRCH {
		t.Error("something is left: ", k.m.StandIns())
	}
	_ = c.in.Close() // the last of the session, whose number is held until then
	eventually(t, "the next has its place", func() bool {
		c, err := k.try(shell(home(40003, 40003), who+"; read x"))
		return err == nil && c.line() == "40003 40000 40003 40000"
	})
}

// Until its program runs, a process that is the user's already cannot be looked into
// by the user: it has the memory and descriptors of a stand-in.
func TestNotTraceable(t *testing.T) {
	k := start(t)
	user := sys.Credentials{UID: 1234, GID: 1234}
	look := func() error {
		return sys.As(user, func() error {
			_, err := os.Readlink("/proc/40001/exe") // asks what ptrace(2) asks
			return err
		})
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	s := shell(home(40001, 40001), "echo up; read x")
	s.UID, s.GID, s.Dir = user.UID, user.GID, "/"
	k.m.mu.Lock()
	p, err := k.m.settle(t.Context(), s, null)
	if err == nil {
		err = k.m.prepare(p, s, []*os.File{null, null, null}, null)
	}
	if err == nil {
		if err := look(); !errors.Is(err, unix.EACCES) {
			t.Errorf("the user may look into it: %v", err)
		}
		if !isStandIn(40001) {
			t.Error("the next daemon does not find it")
		}
	}
	if p != nil {
		k.m.end(p)
	}
	k.m.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	c := k.create(s)
	_ = c.line()
	if err := look(); err != nil {
		t.Errorf("into its program: %v", err)
	}
}
