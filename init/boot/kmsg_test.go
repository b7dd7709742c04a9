package boot

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// logBench is a kernel's log and a console of a test.
type logBench struct {
	kernel, console strings.Builder
	now             time.Time
	level           int // what the kernel shows on the console by itself is below it
	*slog.Logger
}

func newLogBench(news ...string) *logBench {
	b := &logBench{now: time.Unix(1e9, 0), level: 4}
	b.Logger = slog.New(newKmsg(&kmsgSink{
		name: "node", log: &b.kernel, news: news, now: func() time.Time { return b.now },
		console: func(line string) { b.console.WriteString(line) },
		shown:   func(severity int) bool { return severity < b.level },
	}, slog.LevelInfo))
	return b
}

// A record is one line of the kernel's log, with its priority, never too long.
func TestKmsg(t *testing.T) {
	b := newLogBench()
	log := b.With("a", 1)
	log.Debug("not this")
	log.Info("one\ntwo", "op", "x")
	log.WithGroup("g").Error("bad", "err", errors.New("why"))
	log.Warn("long", "text", strings.Repeat("ä", 1000))
	lines := strings.Split(b.kernel.String(), "\n")
	if len(lines) != 4 || lines[0] != `<30>ssi[node]: msg="one\ntwo" a=1 op=x` || lines[1] != `<27>ssi[node]: msg=bad a=1 g.err=why` || !strings.HasPrefix(lines[2], "<28>") {
		t.Errorf("%q", lines)
	}
	for _, line := range lines {
		if len(line) >= 976 || !utf8.ValidString(line) {
			t.Errorf("%d bytes: %q", len(line), line)
		}
	}
	if long := lines[2]; len(long) < 970 || !strings.HasSuffix(long, "…") {
		t.Errorf("%q", long)
	}
}

// The console gets what the operator must see, and nothing twice.
func TestKmsgConsole(t *testing.T) {
	b := newLogBench("joined")
	b.Info("sent", "bytes", 1)
	b.Info("joined", "node", 2)
	b.Warn("a cable", "err", "no\x1b[31m carrier")
	b.Error("the kernel shows this by itself")
	got := b.console.String()
	for _, want := range []string{"] node: msg=joined node=2\r\n", `] node: msg="a cable" err="no\x1b[31m carrier"` + "\r\n"} {
		if strings.Count(got, want) != 1 {
			t.Errorf("%q is not there once: %q", want, got)
		}
	}
	if strings.Count(got, "\n") != 2 || strings.Count(b.kernel.String(), "\n") != 4 {
		t.Errorf("console %q, kernel %q", got, b.kernel.String())
	}
	b.console.Reset()
	b.level = 0 // quieter than quiet
	b.Error("now it does not")
	if got := b.console.String(); !strings.Contains(got, "now it does not") {
		t.Errorf("%q", got)
	}
	b.console.Reset()
	b.level = 7
	b.Warn("all")
	b.Info("joined")
	if got := b.console.String(); got != "" {
		t.Errorf("twice: %q", got)
	}
}

// A role that writes too much is cut off, and the next line says by how much.
func TestKmsgLimit(t *testing.T) {
	b := newLogBench()
	for n := range 10 * kmsgBurst {
		b.Info("one of many", "n", n)
	}
	if n := strings.Count(b.kernel.String(), "\n"); n != kmsgBurst {
		t.Errorf("%d messages at once", n)
	}
	b.now = b.now.Add(3 * kmsgEvery)
	b.kernel.Reset()
	b.console.Reset()
	for range 5 {
		b.Info("later")
	}
	want := fmt.Sprintf("<28>ssi[node]: msg=\"messages dropped, there were too many\" count=%d\n", 9*kmsgBurst) + strings.Repeat("<30>ssi[node]: msg=later\n", 3)
	if got := b.kernel.String(); got != want {
		t.Errorf("%q", got)
	}
	if got := b.console.String(); strings.Count(got, "messages dropped") != 1 {
		t.Errorf("console: %q", got)
	}
	b.now = b.now.Add(time.Hour)
	b.kernel.Reset()
	for range 10 * kmsgBurst {
		b.Info("much later")
	}
	if n := strings.Count(b.kernel.String(), "much later\"\n"); n != kmsgBurst {
		t.Errorf("%d messages after a pause", n)
	}
}

// A console that another process writes to takes the line a moment later; one that was
// stopped costs one wait, and not one for each line.
func TestConsoleBusy(t *testing.T) {
	pauses := 0
	c := console{pause: func() { pauses++ }}
	var got string
	answers := func(list ...error) func([]byte) (int, error) {
		return func(b []byte) (int, error) {
			if len(list) == 0 {
				n := min(len(b), 5) // as much as there is room
				got += string(b[:n])
				return n, nil
			}
			err := list[0]
			list = list[1:]
			return -1, err
		}
	}
	c.put([]byte("in two parts"), answers(unix.EAGAIN, unix.EINTR, unix.EAGAIN))
	if got != "in two parts" || pauses != 2 {
		t.Errorf("%q after %d pauses", got, pauses)
	}
	tries := 0
	for range 5 {
		c.put([]byte("stopped"), func([]byte) (int, error) { tries++; return -1, unix.EAGAIN })
	}
	if tries != consoleTries+4 || pauses != 2+consoleTries-1 {
		t.Errorf("%d tries, %d pauses", tries, pauses)
	}
	c.put([]byte(", on"), answers())
	c.put([]byte(", busy"), answers(unix.EAGAIN))
	c.put([]byte("gone"), answers(unix.EIO))
	c.put([]byte("never"), func([]byte) (int, error) { return 0, nil })
	if got != "in two parts, on, busy" || pauses != 2+consoleTries {
		t.Errorf("%q after %d pauses", got, pauses)
	}
}
