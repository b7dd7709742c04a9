package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
)

const (
	consoleSize = 1 << 20  // bytes kept in memory
	consoleFile = 64 << 20 // bytes kept in the file
	shownLines  = 15       // of the console in an error
)

// Console is what a machine said on its serial line, over all the times it was
// on. Text is without escape sequences and control characters but line feeds;
// the file has every byte.
type Console struct {
	machine string

	mu      sync.Mutex
	on      bool
	text    []byte // the last of it
	read    int    // before it, text was matched already
	filter  filter
	changed chan struct{} // closed at the next change

	f    *os.File
	size int
	err  error // of the file
}

func newConsole(machine, path string) (*Console, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("machine %s: console: %w", machine, err)
	}
	return &Console{machine: machine, changed: make(chan struct{}), f: f}, nil
}

// Write takes what came from the serial line. It never fails.
func (c *Console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if room := consoleFile - c.size; c.err == nil && room > 0 {
		_, c.err = c.f.Write(b[:min(len(b), room)])
		c.size += min(len(b), room)
	}
	c.text = c.filter.clean(c.text, b)
	if over := len(c.text) - consoleSize; over > 0 {
		over = max(over, consoleSize/4) // seldom, because it copies
		c.text = append(c.text[:0], c.text[over:]...)
		c.read = max(0, c.read-over)
	}
	c.notify()
	return len(b), nil
}

func (c *Console) notify() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// setPower says that the machine is on or off. What was said before it was on is
// not matched any more.
func (c *Console) setPower(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on = on
	if on {
		c.read = len(c.text)
		c.filter = filter{}
	}
	c.notify()
}

// power reports whether the machine is on and may still say something.
func (c *Console) power() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.on
}

// Expect waits until the machine says something that matches a regular
// expression and returns the match and its groups. What was matched, and all
// before it, is not looked at again; after PowerOn neither is what the machine
// said when it was on before. If the machine is off and said nothing that
// matches, the error is ErrOff.
func (c *Console) Expect(ctx context.Context, pattern string) ([]string, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("machine %s: expect: %w", c.machine, err)
	}
	for {
		c.mu.Lock()
		if at := re.FindSubmatchIndex(c.text[c.read:]); at != nil {
			match := make([]string, len(at)/2)
			for i := range match {
				if at[2*i] >= 0 {
					match[i] = string(c.text[c.read+at[2*i] : c.read+at[2*i+1]])
				}
			}
			c.read += at[1]
			c.mu.Unlock()
			return match, nil
		}
		on, changed := c.on, c.changed
		c.mu.Unlock()
		if !on {
			return nil, c.missed(pattern, ErrOff)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, c.missed(pattern, ctx.Err())
		}
	}
}

// ExpectText is Expect for a text.
func (c *Console) ExpectText(ctx context.Context, text string) error {
	_, err := c.Expect(ctx, regexp.QuoteMeta(text))
	return err
}

func (c *Console) missed(pattern string, err error) error {
	return fmt.Errorf("machine %s: expect %q: %w; its console ends with:\n%s", c.machine, pattern, err, c.Tail(shownLines))
}

// Text is the last megabyte of the console.
func (c *Console) Text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.text)
}

// Tail is the last lines of the console.
func (c *Console) Tail(lines int) string {
	all := strings.Split(strings.TrimRight(c.Text(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (c *Console) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := errors.Join(c.err, c.f.Close()); err != nil {
		return fmt.Errorf("machine %s: console: %w", c.machine, err)
	}
	return nil
}

// filter takes the escape sequences (ECMA-48) and control characters out of what
// goes to a terminal, however it is cut into pieces.
type filter struct{ state filterState }

type filterState byte

const (
	plain   filterState = iota
	escaped             // after ESC
	control             // in a control sequence: ESC [ ... final
	str                 // in a string, until BEL or ESC \
	strEsc              // in a string, after ESC
)

func (f *filter) clean(to, b []byte) []byte {
	for _, c := range b {
		if c == '\n' { // ends a sequence that was cut off, too
			to, f.state = append(to, c), plain
			continue
		}
		switch f.state {
		case plain:
			switch {
			case c == 0x1b:
				f.state = escaped
			case c == '\t' || c >= ' ' && c != 0x7f:
				to = append(to, c)
			}
		case escaped:
			switch {
			case c == '[':
				f.state = control
			case bytes.IndexByte([]byte("]PX^_"), c) >= 0:
				f.state = str
			case c < 0x20 || c > 0x2f: // not an intermediate byte: the last one
				f.state = plain
			}
		case control:
			if c >= 0x40 && c <= 0x7e {
				f.state = plain
			}
		case str:
			switch c {
			case 0x1b:
				f.state = strEsc
			case 0x07:
				f.state = plain
			}
		case strEsc:
			f.state = plain
		}
	}
	return to
}
