package boot

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// KmsgEnv is set in the environment of roles whose log goes to the kernel's.
const KmsgEnv = "SSI_KMSG"

// maxKmsg is how long a line of the kernel's log may be: PRINTKRB_RECORD_MAX of
// printk.c is 1024, with the priority; longer ones are refused.
const maxKmsg = 1000

// kmsg is a slog.Handler that writes to the kernel's log, /dev/kmsg, with the
// priority of each message. The kernel bounds the log and decides by its log level what
// the console shows. Writing never waits for a terminal.
type kmsg struct {
	slog.Handler // makes the text, in buf
	sink         *kmsgSink
}

type kmsgSink struct {
	mu   sync.Mutex // held while one line is made and written
	f    *os.File
	name string
	buf  bytes.Buffer
}

// NewKmsg gives a log that writes to the kernel's as "ssi[name]: …".
func NewKmsg(name string, level slog.Level) (*slog.Logger, error) {
	f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	return slog.New(newKmsg(f, name, level)), nil
}

// RoleLog is the log of a role: the kernel's if PID 1 says so (KmsgEnv), else
// standard error.
func RoleLog(role string, level slog.Level) *slog.Logger {
	if os.Getenv(KmsgEnv) != "" {
		if log, err := NewKmsg(role, level); err == nil {
			return log
		}
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("role", role)
}

func newKmsg(f *os.File, name string, level slog.Level) slog.Handler {
	s := &kmsgSink{f: f, name: name}
	text := slog.NewTextHandler(&s.buf, &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) { // the kernel notes both
			return slog.Attr{}
		}
		return a
	}})
	return kmsg{text, s}
}

// Handle writes one line.
func (k kmsg) Handle(ctx context.Context, r slog.Record) error {
	k.sink.mu.Lock()
	defer k.sink.mu.Unlock()
	k.sink.buf.Reset()
	if err := k.Handler.Handle(ctx, r); err != nil {
		return err
	}
	text := strings.TrimRight(k.sink.buf.String(), "\n")
	line := priority(r.Level) + "ssi[" + k.sink.name + "]: " + text
	if len(line) > maxKmsg {
		line = line[:maxKmsg]
	}
	_, err := k.sink.f.WriteString(line + "\n")
	return err
}

// WithAttrs is that of slog.Handler.
func (k kmsg) WithAttrs(attrs []slog.Attr) slog.Handler {
	return kmsg{k.Handler.WithAttrs(attrs), k.sink}
}

// WithGroup is that of slog.Handler.
func (k kmsg) WithGroup(name string) slog.Handler { return kmsg{k.Handler.WithGroup(name), k.sink} }

// priority is facility daemon (3) and the severity of syslog(3).
func priority(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "<27>"
	case l >= slog.LevelWarn:
		return "<28>"
	case l >= slog.LevelInfo:
		return "<30>"
	}
	return "<31>"
}
