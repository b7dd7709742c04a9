package applet

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"ssi/internal/api"
)

func TestShutdownTime(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 30, 0, time.UTC)
	for when, want := range map[string]time.Duration{
		"now": 0, "+0": 0, "+5": 5 * time.Minute,
		"12:01": 30 * time.Second, "12:00": 24*time.Hour - 30*time.Second, "23:59": 12*time.Hour - 90*time.Second,
	} {
		if got, err := shutdownTime(when, now); err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", when, got, err, want)
		}
	}
	for _, when := range []string{"", "soon", "+", "+-5", "+1h", "+5.5", "+10081", "24:00", "12", "5"} {
		got, err := shutdownTime(when, now)
		var u *UsageError
		if !errors.As(err, &u) {
			t.Errorf("%q is taken as %v, %v", when, got, err)
		}
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 999 * time.Millisecond: "0s", 59 * time.Second: "59s", 60 * time.Second: "1m00s",
		time.Hour - 1: "59m59s", 25 * time.Hour: "1d01h", 400 * 24 * time.Hour: "400d00h",
	} {
		if got := age(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestShow(t *testing.T) {
	for in, want := range map[string]string{
		"": `""`, "plain": "plain", "two words": "two words", "ü": "ü", "a\nb": `"a\nb"`, `"`: `"\""`, "\xff": `"\xff"`, "\x1b[2J": `"\x1b[2J"`,
	} {
		if got := show([]byte(in)); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func TestMeant(t *testing.T) {
	table := Table()
	for typed, want := range map[string]string{
		"onnod": "onnode", "clusternam": "clustername", "onal": "onall", "doktor": "doctor", "xyzzy": "", "": "",
	} {
		if got := meant(table, typed); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", typed, got, want)
		}
	}
}

// Lines of several writers never mix, whatever the pieces they come in.
func TestLineWriter(t *testing.T) {
	var mu sync.Mutex
	var out bytes.Buffer
	var wg sync.WaitGroup
	const writers, lines = 8, 200
	for i := range writers {
		wg.Go(func() {
			name := string(rune('a' + i))
			w := &lineWriter{mu: &mu, w: &out, prefix: name + ": "}
			text := strings.Repeat(strings.Repeat(name, 30)+"\n", lines)
			for size := 1; len(text) > 0; size = size%40 + 1 {
				n, err := w.Write([]byte(text[:min(size, len(text))]))
				if err != nil {
					t.Error(err)
				}
				text = text[n:]
			}
			w.flush()
		})
	}
	wg.Wait()
	n := 0
	for line := range strings.Lines(out.String()) {
		n++
		name := line[:1]
		if line != name+": "+strings.Repeat(name, 30)+"\n" {
			t.Fatalf("a mixed line: %q", line)
		}
	}
	if n != writers*lines {
		t.Errorf("%d lines, want %d", n, writers*lines)
	}
}

// A line that never ends does not fill the memory.
func TestLineWriterLimit(t *testing.T) {
	var mu sync.Mutex
	var out bytes.Buffer
	w := &lineWriter{mu: &mu, w: &out, prefix: "n: "}
	for range 100 {
		if _, err := w.Write(bytes.Repeat([]byte("x"), 4096)); err != nil {
			t.Fatal(err)
		}
		if len(w.rest) > maxLine {
			t.Fatalf("%d bytes are held back", len(w.rest))
		}
	}
	w.flush()
	if got := bytes.Count(out.Bytes(), []byte("x")); got != 100*4096 {
		t.Errorf("%d bytes came through", got)
	}
}

func TestStrays(t *testing.T) {
	for n, want := range map[uint64]string{0: "", 2: "; 2 times this one gave out others"} {
		if got := strays(&api.ClusterStatus{Strays: n}); got != want {
			t.Errorf("%d: %q", n, got)
		}
	}
}
