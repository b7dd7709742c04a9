package pid1

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ssi/internal/keeper"
)

// The watchdog is fed every third of its time, and told that the end is meant.
func TestWatchdog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "watchdog")
	var w watchdog
	now := time.Now()
	w.ping(now) // off: nothing
	w.close()
	if err := w.open(path, 30*time.Second); err == nil {
		t.Error("there is no watchdog, and no error")
	}
	if w.wait(now) != time.Hour {
		t.Errorf("it is off, but wakes after %s", w.wait(now))
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want := func(written string) {
		t.Helper()
		if b, err := os.ReadFile(path); string(b) != written {
			t.Errorf("%q, want %q, %v", b, written, err)
		}
	}
	if err := w.open(path, 30*time.Second); err != nil {
		t.Fatal(err)
	}
	want("\x00")
	at := w.next
	if w.wait(at.Add(-time.Second)) != time.Second || w.wait(at.Add(time.Second)) != 0 {
		t.Error("wait")
	}
	w.ping(at.Add(-time.Millisecond))
	want("\x00")
	w.ping(at)
	want("\x00\x00")
	if got := w.next.Sub(at); got != 10*time.Second {
		t.Errorf("next ping after %s", got)
	}
	if err := w.open(path, 3*time.Second); err != nil { // asked again: another time
		t.Fatal(err)
	}
	if w.every != time.Second {
		t.Errorf("%s", w.every)
	}
	w.close()
	want("\x00\x00V")
}

func TestRights(t *testing.T) {
	for _, c := range []struct {
		who rights
		op  keeper.Op
		arg string
		may bool
	}{
		{runsNode, keeper.OpEnd, "\x04", true}, {startsMachine, keeper.OpEnd, "\x03", true}, {keepsFiles, keeper.OpEnd, "\x03", false},
		{runsNode, keeper.OpEnd, "\x00", false}, {runsNode, keeper.OpEnd, "\x05", false}, {runsNode, keeper.OpEnd, "", false},
		{runsNode, keeper.OpRespawn, "", true}, {startsMachine, keeper.OpRespawn, "", false},
		{runsNode, keeper.OpReady, "", true}, {startsMachine, keeper.OpReady, "", false}, {keepsFiles, keeper.OpReady, "", false},
		{startsMachine, keeper.OpSwitchRoot, "/sbin/init", true}, {runsNode, keeper.OpSwitchRoot, "/sbin/init", false},
		{startsMachine, keeper.OpSwitchRoot, "init", false}, {startsMachine, keeper.OpSwitchRoot, "/a\x00b", false},
		{startsMachine, keeper.OpWatchdog, "\x00\x00\x00\x05", true}, {startsMachine, keeper.OpWatchdog, "5", false}, {runsNode, keeper.OpWatchdog, "\x00\x00\x00\x05", false},
		{runsNode, 'Z', "", false},
	} {
		if got := c.who.may(c.op, c.arg); got != c.may {
			t.Errorf("%d %c %q: %v", c.who, c.op, c.arg, got)
		}
	}
}

func FuzzRequests(f *testing.F) {
	f.Add([]byte("E\x01"))
	f.Add([]byte("R/sbin/init"))
	f.Add([]byte("W\x00\x00\x00\x05"))
	f.Add([]byte("S"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || len(b) > keeper.MaxName {
			return
		}
		for _, who := range []rights{keepsFiles, runsNode, startsMachine} {
			op, arg := keeper.Op(b[0]), string(b[1:])
			if !who.may(op, arg) {
				continue
			}
			d := newInitd(Options{Log: slog.New(slog.DiscardHandler)})
			d.starting = &starting{}
			d.spawn = &role{} // no process: nothing is signalled
			if op == keeper.OpWatchdog {
				continue // it opens the machine's
			}
			d.requested(request{op, arg})
			if d.ending > keeper.Kexec {
				t.Errorf("%q: ending %d", b, d.ending)
			}
		}
	})
}
