package boot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// KmsgEnv is set in the environment of roles whose log goes to the kernel's.
const KmsgEnv = "SSI_KMSG"

const (
	// maxKmsg is how many bytes of a message are written: the kernel refuses more
	// than 1,024 (PRINTKRB_RECORD_MAX of printk.c), and 48 of those have been its own
	// prefix.
	maxKmsg = 975
	// kmsgBurst and kmsgEvery are how many messages a role may write at once, and how
	// soon another one after that: one that fails again and again may not push all
	// others out of the kernel's log.
	kmsgBurst = 100
	kmsgEvery = 100 * time.Millisecond
	// consoleTries is how often a line is tried on a console that does not take it, with
	// consolePause between them.
	consoleTries = 10
	consolePause = time.Millisecond
)

// kmsg is a slog.Handler that writes to the kernel's log, /dev/kmsg, with the
// priority of each message, and what the operator must see to the console too. The
// kernel bounds the log and decides by its log level what the console shows by
// itself. It never waits for a terminal longer than consoleTries; where the kernel shows messages on a serial
// line, printk waits for that line.
type kmsg struct {
	slog.Handler // makes the text, in buf
	sink         *kmsgSink
}

type kmsgSink struct {
	name    string
	log     io.Writer
	console func(line string)       // nil: nothing goes there
	shown   func(severity int) bool // whether the kernel shows it on the console
	news    []string                // messages of level Info for the console
	now     func() time.Time

	mu      sync.Mutex // held while one message is made and written
	buf     bytes.Buffer
	left    int // messages that may be written at once
	since   time.Time
	dropped int
}

// NewKmsg gives a log that writes to the kernel's as "ssi[name]: …".
func NewKmsg(name string, level slog.Level) (*slog.Logger, error) {
	s, err := openKmsg(name)
	if err != nil {
		return nil, err
	}
	return slog.New(newKmsg(s, level)), nil
}

// RoleLog is the log of a role: the kernel's if PID 1 says so (KmsgEnv), else
// standard error. What goes to the kernel's goes to the console too if it is a
// warning, an error, or one of the messages news.
func RoleLog(role string, level slog.Level, news ...string) *slog.Logger {
	if os.Getenv(KmsgEnv) != "" {
		if s, err := openKmsg(role); err == nil {
			s.console, s.shown, s.news = newConsole().write, kernelShows, news
			return slog.New(newKmsg(s, level))
		}
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("role", role)
}

func openKmsg(name string) (*kmsgSink, error) {
	f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	return &kmsgSink{name: name, log: f, now: time.Now}, nil
}

func newKmsg(s *kmsgSink, level slog.Level) slog.Handler {
	s.left, s.since = kmsgBurst, s.now()
	text := slog.NewTextHandler(&s.buf, &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) { // the kernel notes both
			return slog.Attr{}
		}
		return a
	}})
	return kmsg{text, s}
}

// Handle writes one line, or counts it if there were too many.
func (k kmsg) Handle(ctx context.Context, r slog.Record) error {
	s := k.sink
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.allow() {
		s.dropped++
		return nil
	}
	if s.dropped > 0 {
		text := fmt.Sprintf("msg=\"messages dropped, there were too many\" count=%d", s.dropped)
		if err := s.write(slog.LevelWarn, text, true); err != nil {
			return err
		}
		s.dropped = 0
	}
	s.buf.Reset()
	if err := k.Handler.Handle(ctx, r); err != nil {
		return err
	}
	return s.write(r.Level, strings.TrimRight(s.buf.String(), "\n"), r.Level >= slog.LevelWarn || slices.Contains(s.news, r.Message))
}

// allow reports whether one more message may be written now.
func (s *kmsgSink) allow() bool {
	if n := int(s.now().Sub(s.since) / kmsgEvery); n > 0 {
		s.left = min(s.left+n, kmsgBurst)
		s.since = s.since.Add(time.Duration(n) * kmsgEvery)
	}
	if s.left == 0 {
		return false
	}
	s.left--
	return true
}

// write writes one line to the kernel's log and, if it is for the operator, to the
// console.
func (s *kmsgSink) write(l slog.Level, text string, operator bool) error {
	p := severity(l)
	_, err := io.WriteString(s.log, shorten(fmt.Sprintf("<%d>ssi[%s]: %s", daemonFacility|p, s.name, text), maxKmsg)+"\n")
	if operator && s.console != nil && !s.shown(p) {
		s.console(fmt.Sprintf("[%8.2f] %s: %s\r\n", sinceKernel().Seconds(), s.name, shorten(text, maxKmsg)))
	}
	return err
}

// WithAttrs is that of slog.Handler.
func (k kmsg) WithAttrs(attrs []slog.Attr) slog.Handler {
	return kmsg{k.Handler.WithAttrs(attrs), k.sink}
}

// WithGroup is that of slog.Handler.
func (k kmsg) WithGroup(name string) slog.Handler { return kmsg{k.Handler.WithGroup(name), k.sink} }

// daemonFacility is LOG_DAEMON of syslog(3).
const daemonFacility = 3 << 3

// severity is that of syslog(3).
func severity(l slog.Level) int {
	switch {
	case l >= slog.LevelError:
		return 3
	case l >= slog.LevelWarn:
		return 4
	case l >= slog.LevelInfo:
		return 6
	}
	return 7
}

// shorten cuts a line to at most limit bytes, not within a character.
func shorten(line string, limit int) string {
	if len(line) <= limit {
		return line
	}
	end := limit - len("…")
	for end > 0 && !utf8.RuneStart(line[end]) {
		end--
	}
	return line[:end] + "…"
}

// kernelShows reports whether the kernel shows messages of a severity on the
// console: the first number of /proc/sys/kernel/printk, see syslog(2).
func kernelShows(severity int) bool {
	text, err := readLimited("/proc/sys/kernel/printk", 64)
	level, _, _ := strings.Cut(text, "\t")
	n, nerr := strconv.Atoi(strings.TrimSpace(level))
	return err == nil && nerr == nil && severity < n
}

// console writes to the console as far as that takes it: nobody waits for a terminal
// that was stopped by ^S. It is not safe for concurrent use.
type console struct {
	stopped bool // the last line was not taken
	pause   func()
}

func newConsole() *console {
	return &console{pause: func() { time.Sleep(consolePause) }}
}

func (c *console) write(line string) {
	fd, err := unix.Open("/dev/console", unix.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	c.put([]byte(line), func(b []byte) (int, error) { return unix.Write(fd, b) })
	_ = unix.Close(fd)
}

// put tries a few times: while another process writes to the terminal, write(2) gives
// EAGAIN as well (kernel file drivers/tty/tty_io.c, tty_write_lock). One that was found
// stopped is tried once for each line, until it takes one.
func (c *console) put(line []byte, write func([]byte) (int, error)) {
	for try := 1; len(line) > 0; try++ {
		n, err := write(line)
		line = line[max(n, 0):]
		switch {
		case err == nil && n > 0, errors.Is(err, unix.EINTR) && try < consoleTries:
		case errors.Is(err, unix.EAGAIN) && try < consoleTries && !c.stopped:
			c.pause()
		default:
			c.stopped = true
			return
		}
	}
	c.stopped = false
}
