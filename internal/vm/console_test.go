package vm

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func testConsole(t *testing.T) (*Console, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "console")
	c, err := newConsole("n1", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.close(); err != nil {
			t.Error(err)
		}
	})
	return c, path
}

func say(t *testing.T, c *Console, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func TestExpect(t *testing.T) {
	c, path := testConsole(t)
	if _, err := c.Expect(within(t), "x"); !errors.Is(err, ErrOff) {
		t.Errorf("a machine that was never on: %v", err)
	}
	c.setPower(true)
	done := make(chan error, 1)
	go func() { done <- c.ExpectText(within(t), "rea.dy") }()
	say(t, c, "first\r\nrea.")
	say(t, c, "\x1b[1mdy\r\nnode 17 is UP, node 4 is DOWN\r\n")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	m, err := c.Expect(within(t), `node (\d+) is (?:UP|DOWN)(never)?`)
	if err != nil || len(m) != 3 || m[1] != "17" || m[2] != "" {
		t.Fatalf("matched %q, %v", m, err)
	}
	if m, err := c.Expect(within(t), `node (\d+)`); err != nil || m[1] != "4" {
		t.Fatalf("matched %q, %v: what was matched is matched again", m, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Expect(ctx, "first"); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "node 17 is UP") {
		t.Errorf("what was passed over: %v", err)
	}
	if _, err := c.Expect(within(t), "("); err == nil {
		t.Error("a bad expression is accepted")
	}

	// What it said at last is heard after it went off, and not after it is on again.
	say(t, c, "bye 1\nbye 2\n")
	go func() { _, err := c.Expect(within(t), "never"); done <- err }()
	c.setPower(false)
	if err := <-done; !errors.Is(err, ErrOff) {
		t.Errorf("waiting for a machine that goes off: %v", err)
	}
	if err := c.ExpectText(within(t), "bye 1"); err != nil {
		t.Error(err)
	}
	c.setPower(true)
	say(t, c, "hello\n")
	if m, err := c.Expect(within(t), "bye|hello"); err != nil || m[0] != "hello" {
		t.Errorf("after power-on: %q, %v", m, err)
	}
	if want, text := "first\nrea.dy\nnode 17 is UP, node 4 is DOWN\nbye 1\nbye 2\nhello\n", c.Text(); text != want {
		t.Errorf("the text is %q", text)
	}
	raw, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(raw), "rea.\x1b[1mdy\r\n") {
		t.Errorf("the file has %q, %v", raw, err)
	}
}

// A machine that talks without end is heard to the last, in bounded memory.
func TestConsoleIsBounded(t *testing.T) {
	c, path := testConsole(t)
	c.setPower(true)
	chunk := strings.Repeat("noise ", 32<<10)
	for i := 0; i < consoleFile+2*len(chunk); i += len(chunk) {
		say(t, c, chunk)
		if len(c.text) > consoleSize {
			t.Fatalf("%d bytes are kept", len(c.text))
		}
	}
	say(t, c, "the end\n")
	if err := c.ExpectText(within(t), "the end"); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != consoleFile {
		t.Errorf("the file has %v bytes, %v", info.Size(), err)
	}
}

func TestFilter(t *testing.T) {
	for in, want := range map[string]string{
		"\x1b[2J\x1b[01;31mred\x1b[0m\r\n":  "red\n",
		"\x1bcreset\x1b(Bset\a\b":           "resetset",
		"\x1b]0;title\atext\x1b]1;x\x1b\\y": "texty",
		"tab\tb\x7f\x00é":                   "tab\tbé",
		"cut\x1b[12\noff\x1b]0\nhere\x1b\n": "cut\noff\nhere\n",
	} {
		var f filter
		if got := string(f.clean(nil, []byte(in))); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func FuzzFilter(f *testing.F) {
	f.Add([]byte("a\x1b[1;2Hb\x1b]0;t\x1b\\c\r\n"), 3)
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		var whole, pieces filter
		a := whole.clean(nil, in)
		if cut < 0 || cut > len(in) {
			cut = len(in) / 2
		}
		b := pieces.clean(pieces.clean(nil, in[:cut]), in[cut:])
		if !bytes.Equal(a, b) {
			t.Fatalf("whole %q, in pieces %q", a, b)
		}
		for _, c := range a {
			if c < ' ' && c != '\n' && c != '\t' || c == 0x7f {
				t.Fatalf("%q has %q", a, c)
			}
		}
		if bytes.Count(in, []byte("\n")) != bytes.Count(a, []byte("\n")) {
			t.Fatal("a line is lost")
		}
	})
}
