package applet

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// The exit statuses that all commands share.
const (
	StatusOK      = 0
	StatusFailure = 1
	StatusUsage   = 2
)

// UsageError is a command line that makes no sense: exit status 2.
type UsageError struct{ Text string }

func (e *UsageError) Error() string { return e.Text }

// Usagef makes a UsageError.
func Usagef(format string, args ...any) error {
	return &UsageError{Text: fmt.Sprintf(format, args...)}
}

// StatusError ends the command with a status, without a message: the command
// has said what there was to say, or its answer is the status.
type StatusError int

func (e StatusError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// failed is an error with a status of its own.
type failed struct {
	status int
	err    error
}

func (e *failed) Error() string { return e.err.Error() }
func (e *failed) Unwrap() error { return e.err }

// statusOf is the exit status for an error, and whether it needs a message.
func statusOf(err error) (status int, silent bool) {
	if err == nil {
		return StatusOK, true
	}
	var s StatusError
	if errors.As(err, &s) {
		return int(s), true
	}
	var f *failed
	if errors.As(err, &f) {
		return f.status, false
	}
	var u *UsageError
	if errors.As(err, &u) {
		return StatusUsage, false
	}
	return StatusFailure, false
}

// Args is a validator of the number of arguments: at least least, at most most
// (-1: any number). Its message repeats the synopsis.
func Args(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least && most == 0, most >= 0 && len(args) > most:
			if most == 0 && cmd.HasSubCommands() {
				return Usagef("no subcommand %q", args[0])
			}
			return Usagef("argument %q is too much; usage: %s", args[most], cmd.UseLine())
		case len(args) < least:
			return Usagef("arguments are missing; usage: %s", cmd.UseLine())
		}
		return nil
	}
}
