package applet

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// topScreen is the terminal of the caller while top has it: raw, on its
// alternate screen. It speaks the plain ECMA-48 that every terminal of today
// knows: a screen library costs each start of the program, whatever the command,
// half a millisecond of tables.
type topScreen struct {
	tty   *os.File
	saved *term.State
	last  []topLine // what is on the screen
	keys  chan topKeyPress
	done  chan struct{} // closed by close: the reader ends
	wg    sync.WaitGroup
}

// topKeyPress is a key: a character, or a name such as "up".
type topKeyPress struct {
	char rune
	name string
}

const (
	screenEnter = "\x1b[?1049h\x1b[?7l\x1b[?25l\x1b[2J" // alternate, no wrap, no cursor, clear
	screenLeave = "\x1b[0m\x1b[?25h\x1b[?7h\x1b[?1049l"
)

// openScreen takes the controlling terminal. The caller must close it.
func openScreen() (*topScreen, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("there is no terminal (%w); use top -b", err)
	}
	s := &topScreen{tty: tty, keys: make(chan topKeyPress, 64), done: make(chan struct{})}
	if err := s.enter(); err != nil {
		_ = tty.Close()
		return nil, err
	}
	s.wg.Go(s.read)
	return s, nil
}

// fd gives the descriptor without making it blocking, as File.Fd would.
func (s *topScreen) fd(f func(fd int) error) error {
	raw, err := s.tty.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

func (s *topScreen) enter() error {
	err := s.fd(func(fd int) (err error) {
		s.saved, err = term.MakeRaw(fd)
		return err
	})
	if err != nil {
		return fmt.Errorf("prepare the terminal: %w", err)
	}
	s.last = nil
	_, err = s.tty.WriteString(screenEnter)
	return err
}

// leave gives the terminal back as it was.
func (s *topScreen) leave() error {
	_, err := s.tty.WriteString(screenLeave)
	return errors.Join(err, s.fd(func(fd int) error { return term.Restore(fd, s.saved) }))
}

// close gives the terminal back and ends the reader.
func (s *topScreen) close() error {
	err := s.leave()
	close(s.done)
	_ = s.tty.SetReadDeadline(time.Unix(1, 0))
	s.wg.Wait()
	return errors.Join(err, s.tty.Close())
}

func (s *topScreen) size() (width, height int) {
	_ = s.fd(func(fd int) (err error) {
		width, height, err = term.GetSize(fd)
		return err
	})
	if width <= 0 || height <= 0 {
		return 80, 24
	}
	return width, height
}

// read sends keys until close; it closes keys when the terminal is gone.
func (s *topScreen) read() {
	defer close(s.keys)
	buf := make([]byte, 256)
	for {
		n, err := s.tty.Read(buf)
		if err != nil {
			return
		}
		for _, k := range decodeKeys(buf[:n]) {
			select {
			case s.keys <- k:
			case <-s.done:
				return
			}
		}
	}
}

// decodeKeys reads what a terminal sends for keys. A sequence that is not known
// is dropped as a whole.
func decodeKeys(b []byte) []topKeyPress {
	var out []topKeyPress
	for len(b) > 0 {
		if b[0] != 0x1b {
			r, n := utf8.DecodeRune(b)
			b = b[n:]
			out = append(out, topKeyPress{char: r})
			continue
		}
		if len(b) == 1 || b[1] != '[' && b[1] != 'O' {
			out = append(out, topKeyPress{name: "esc"})
			b = b[1:]
			continue
		}
		i := 2
		for i < len(b) && (b[i] < '@' || b[i] > '~') {
			i++
		}
		if i == len(b) {
			return out
		}
		if name := keyName(b[2:i], b[i]); name != "" {
			out = append(out, topKeyPress{name: name})
		}
		b = b[i+1:]
	}
	return out
}

func keyName(params []byte, final byte) string {
	switch final {
	case 'A':
		return "up"
	case 'B':
		return "down"
	case 'H':
		return "home"
	case 'F':
		return "end"
	case '~':
		switch string(params) {
		case "1", "7":
			return "home"
		case "4", "8":
			return "end"
		case "5":
			return "pageup"
		case "6":
			return "pagedown"
		}
	}
	return ""
}

// draw shows lines; only those that changed are written.
func (s *topScreen) draw(lines []topLine) error {
	var b bytes.Buffer
	for i, l := range lines {
		if i < len(s.last) && s.last[i] == l {
			continue
		}
		b.WriteString("\x1b[")
		b.WriteString(strconv.Itoa(i + 1))
		b.WriteString(";1H\x1b[0m")
		if l.bold {
			b.WriteString("\x1b[1m")
		}
		if l.reverse {
			b.WriteString("\x1b[7m")
		}
		b.WriteString(l.text)
		b.WriteString("\x1b[K")
	}
	s.last = lines
	if b.Len() == 0 {
		return nil
	}
	_, err := s.tty.Write(b.Bytes())
	return err
}

// redraw forgets what is on the screen: its size changed.
func (s *topScreen) redraw() {
	s.last = nil
	_, _ = s.tty.WriteString("\x1b[0m\x1b[2J") // draw returns the error
}
