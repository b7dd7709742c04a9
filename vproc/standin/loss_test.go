package standin

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/proc"
)

// Whatever is killed, nothing hangs, and the next process has its place.
func TestKilled(t *testing.T) {
	k := start(t)
	for _, kill := range []func() int32{
		func() int32 { return k.m.root },
		func() int32 { return 40000 },
	} {
		c := k.create(shell(home(40001, 40001), "echo up; read x; read x"))
		_ = c.line()
		k.m.mu.Lock()
		pid := kill()
		k.m.mu.Unlock()
		if err := unix.Kill(int(pid), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = unix.PidfdSendSignal(int(c.pidfd.Fd()), unix.SIGKILL, nil, 0)
		eventually(t, "it ends", func() bool {
			select {
			case <-k.exits:
			default:
			}
			return unix.Kill(40001, 0) == unix.ESRCH
		})
		k.m.Release(40001)
		eventually(t, "the next has its place", func() bool {
			c, err := k.try(shell(home(40001, 40001), who))
			return err == nil && c.line() == "40001 40000 40001 40000"
		})
		eventually(t, "it ends too", func() bool {
			return unix.Kill(40001, 0) == unix.ESRCH
		})
	}
}

// The next daemon ends what an earlier one left.
func TestEarlier(t *testing.T) {
	k := start(t)
	k.create(shell(home(40001, 40001), "read x"))
	if len(standIns()) != 2 {
		t.Fatalf("stand-ins: %v", standIns())
	}
	endEarlier(slog.New(slog.DiscardHandler))
	if left := standIns(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if unix.Kill(40001, 0) != nil {
		t.Error("the command was ended too")
	}
}

// Many at once, as pipelines of many shells make them.
func TestMany(t *testing.T) {
	k := start(t)
	const shells, jobs = 5, 12
	var g sync.WaitGroup
	got := make([]string, shells*jobs)
	for i := range shells * jobs {
		sh := int32(40000 + 1000*(i%shells))
		pid := sh + 1 + int32(i/shells)
		p := proc.Place{PID: pid, Parent: sh, ParentGroup: sh, ParentSession: sh, Group: sh + 1 + int32(i/shells)/3*3, GroupParent: sh, Session: sh}
		g.Go(func() {
			r, w, _ := os.Pipe()
			null, _ := os.Open(os.DevNull)
			_, pidfd, err := k.m.Create(t.Context(), &proc.Spec{Argv: []string{"sh", "-c", who + "; exec sleep 1000"}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: "/", Place: p}, []*os.File{null, w, null})
			_, _ = w.Close(), null.Close()
			if err != nil {
				got[i] = err.Error()
				return
			}
			c := &command{kit: k, out: r}
			if line, want := c.line(), fmt.Sprint(pid, sh, p.Group, sh); line != want {
				got[i] = line + ", want " + want
			}
			_ = unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0)
			_, _ = pidfd.Close(), r.Close()
		})
	}
	g.Wait()
	got = slices.DeleteFunc(got, func(s string) bool { return s == "" })
	for _, s := range got {
		t.Error(s)
	}
	for range shells * jobs {
		select {
		case e := <-k.exits:
			k.m.Release(e.PID)
		case <-time.After(patience):
			t.Fatal("not all ends are told")
		}
	}
	eventually(t, "only the root is left", func() bool { return len(k.m.StandIns()) == 1 })
}

// That an earlier process with the same PID has ended does not make the next one
// forgotten.
func TestSamePID(t *testing.T) {
	k := start(t)
	first := k.create(shell(home(40001, 40001), "exit 1"))
	_ = first.exit()
	k.m.held.mu.Lock() // as Release, but nobody looks yet
	k.m.held.released = append(k.m.held.released, 40001)
	k.m.held.mu.Unlock()
	next := k.create(shell(home(40001, 40001), "read x; exit 2"))
	k.m.mu.Lock()
	k.m.endUnneeded()
	k.m.mu.Unlock()
	_ = next.in.Close()
	if e := next.exit(); e.Status.ExitStatus() != 2 {
		t.Errorf("%+v", e)
	}
}
