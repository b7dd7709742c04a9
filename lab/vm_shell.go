package lab

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/vm"
)

const (
	shellOffer = `press Enter for a shell of root` // of package init/boot
	shellTime  = 3 * time.Minute                   // for a machine to boot and offer it
	probeTime  = 3 * time.Second                   // for the shell to answer, before it is asked again
	lineTime   = 30 * time.Second                  // for the shell to take one line
	busyTime   = 10 * time.Second                  // for another command on the console to end
	// pieceSize is how much of a command goes into one line: a shell's line editor
	// takes 1024 bytes.
	pieceSize  = 600
	maxCommand = 64 << 10 // bytes of a command
)

// shell is the shell on the console of a machine. Commands are typed, and found
// in what it says by marks before and after their output.
type shell struct {
	n    id.Node
	m    *vm.Machine
	busy chan struct{} // holds one value while somebody uses the console

	// Guarded by busy.
	offered bool // since the machine was switched on
	ready   bool // the shell takes commands
	runs    int
}

func newShell(n id.Node, m *vm.Machine) *shell {
	return &shell{n: n, m: m, busy: make(chan struct{}, 1)}
}

// hold gets the console for one user.
func (s *shell) hold(ctx context.Context) (release func(), err error) {
	timeout := time.NewTimer(busyTime)
	defer timeout.Stop()
	select {
	case s.busy <- struct{}{}:
		return func() { <-s.busy }, nil
	case <-timeout.C:
		return nil, errno.New(errno.Unavailable, "exec", s.n, "another command has its console, which serves one at a time")
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// open waits for the shell. The caller holds the console.
func (s *shell) open(ctx context.Context) error {
	if s.ready {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, shellTime)
	defer cancel()
	if !s.offered {
		if _, err := s.m.Expect(ctx, shellOffer); err != nil {
			return err
		}
		s.offered = true
	}
	// What is typed before the shell reads may be lost. A shell that is there already
	// does nothing about the Enter that asks for it.
	for {
		if err := s.m.Send(""); err != nil {
			return err
		}
		err := s.line(ctx, probeTime, "")
		if err == nil {
			s.ready = true
			return nil
		}
		if ctx.Err() != nil || !s.m.On() {
			return err
		}
	}
}

// line has the shell run a line without output, and waits until it did.
func (s *shell) line(ctx context.Context, limit time.Duration, text string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s.runs++
	// The quotes keep what the terminal echoes from looking like the answer.
	if err := s.m.Send(fmt.Sprintf(`%secho ssi-""line-%d`, text, s.runs)); err != nil {
		return err
	}
	_, err := s.m.Expect(ctx, fmt.Sprintf(`ssi-line-%d\n`, s.runs))
	return err
}

// run runs a command of the shell's language and passes on what it and others
// say on the console meanwhile. The caller holds the console. A command that
// does not end holds it until ctx ends or the machine is off.
func (s *shell) run(ctx context.Context, command string, tty bool, say func([]byte) error) (int, error) {
	if len(command) > maxCommand {
		return 255, errno.New(errno.Invalid, "exec", s.n, "a command of %d bytes is too long for the console: at most %d", len(command), maxCommand)
	}
	if err := s.open(ctx); err != nil {
		return 255, err
	}
	code := base64.StdEncoding.EncodeToString([]byte(command))
	for first := true; len(code) > 0; first = false {
		piece := code[:min(pieceSize, len(code))]
		code = code[len(piece):]
		assign := "C=$C" + piece
		if first {
			assign = "C=" + piece
		}
		if err := s.line(ctx, lineTime, assign+"; "); err != nil {
			s.ready = false
			return 255, err
		}
	}
	s.runs++
	input := " </dev/null"
	if tty {
		input = ""
	}
	f, err := newFrame(s.runs)
	if err != nil {
		return 255, err
	}
	offer := seen{text: []byte(Host(s.n) + ": " + shellOffer)}
	if err := s.m.Send(fmt.Sprintf(`echo ssi-""begin-%d; (eval "$(echo $C|busybox base64 -d)")%s; echo ssi-""end-%d-$?-`, s.runs, input, s.runs)); err != nil {
		return 255, err
	}
	for {
		match, err := s.m.Expect(ctx, `(?s).+`)
		if err != nil {
			s.ready = false
			return 255, err
		}
		out, status, done := f.feed([]byte(match[0]))
		if len(out) > 0 && say != nil {
			if err := say(out); err != nil {
				say = nil // who listened went away; the command still has the console
			}
		}
		if done {
			return status, nil
		}
		if offer.in([]byte(match[0])) {
			s.ready = false
			return 255, errno.New(errno.Unavailable, "exec", s.n, "the shell on its console ended, and the command's end is not known; the next command gets a new one")
		}
	}
}

// seen finds a text in what comes in pieces. It is pure.
type seen struct{ text, tail []byte }

// in reports whether the text is complete with this piece.
func (s *seen) in(piece []byte) bool {
	s.tail = append(s.tail, piece...)
	found := bytes.Contains(s.tail, s.text)
	s.tail = bytes.Clone(s.tail[max(0, len(s.tail)-len(s.text)+1):])
	return found
}

// output runs a command and returns what it said.
func (s *shell) output(ctx context.Context, command string) (string, int, error) {
	release, err := s.hold(ctx)
	if err != nil {
		return "", 255, err
	}
	defer release()
	var b strings.Builder
	status, err := s.run(ctx, command, false, func(p []byte) error { b.Write(p); return nil })
	return b.String(), status, err
}

// frame finds the output of a command in what a console says. It is pure.
type frame struct {
	begin   []byte
	end     *regexp.Regexp
	mark    []byte // how the end begins
	started bool
	rest    []byte // not decided yet
}

// statusSize is the longest that follows the mark of the end.
const statusSize = len("-255-")

func newFrame(run int) (*frame, error) {
	mark := fmt.Sprintf("ssi-end-%d", run)
	end, err := regexp.Compile(mark + `-(\d{1,3})-`)
	if err != nil {
		return nil, err
	}
	return &frame{begin: fmt.Appendf(nil, "ssi-begin-%d\n", run), end: end, mark: []byte(mark)}, nil
}

// feed takes what the console said and returns what of it is output and, when the
// command is done, its status.
func (f *frame) feed(text []byte) (out []byte, status int, done bool) {
	f.rest = append(f.rest, text...)
	if !f.started {
		at := bytes.Index(f.rest, f.begin)
		if at < 0 {
			f.rest = f.rest[max(0, len(f.rest)-len(f.begin)):]
			return nil, 0, false
		}
		f.started, f.rest = true, f.rest[at+len(f.begin):]
	}
	if at := f.end.FindSubmatchIndex(f.rest); at != nil {
		status, err := strconv.Atoi(string(f.rest[at[2]:at[3]]))
		if err != nil {
			status = 255
		}
		return f.rest[:at[0]], status, true
	}
	keep := len(f.rest)
	for i := max(0, len(f.rest)-len(f.mark)-statusSize+1); i < len(f.rest); i++ {
		if tail := f.rest[i:]; bytes.HasPrefix(f.mark, tail) || bytes.HasPrefix(tail, f.mark) {
			keep = i
			break
		}
	}
	out = bytes.Clone(f.rest[:keep])
	f.rest = append(f.rest[:0], f.rest[keep:]...)
	return out, 0, false
}

// quote makes one word of a shell's language.
func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

// commandLine is the command line of a shell that runs a program.
func commandLine(args []string) string {
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = quote(a)
	}
	return strings.Join(words, " ")
}
