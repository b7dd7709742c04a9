package applet

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"ssi/internal/errno"
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

// message is what a user reads of an error, in one line. What an errno.Error
// was about to do (Op) is left out: the command's name says it.
func message(err error) string {
	var f *failed
	if errors.As(err, &f) {
		err = f.err
	}
	if e, ok := err.(*errno.Error); ok { //nolint:errorlint // what wraps it has more to say
		short := *e
		short.Op = ""
		err = &short
	}
	return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
}

// Args is a validator of the number of arguments: at least least, at most most
// (-1: any number).
func Args(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case most == 0 && len(args) > 0 && cmd.HasSubCommands():
			return Usagef("there is no command %q%s", args[0], closest(args[0], subNames(cmd)))
		case most >= 0 && len(args) > most:
			return Usagef("argument %q is too much; usage: %s", args[most], cmd.UseLine())
		case len(args) < least:
			return Usagef("arguments are missing; usage: %s", cmd.UseLine())
		}
		return nil
	}
}

// needSubcommand is the validator of a command that does nothing by itself.
func needSubcommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return Usagef("there is no command %q%s", args[0], closest(args[0], subNames(cmd)))
	}
	return Usagef("a command is missing: one of %s", strings.Join(subNames(cmd), ", "))
}

func subNames(cmd *cobra.Command) []string {
	var names []string
	for _, sub := range visible(cmd) {
		names = append(names, sub.Name())
	}
	return names
}

// exclusive adds to the check of the arguments that at most one of the flags is
// given.
func exclusive(cmd *cobra.Command, flags ...string) {
	check := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		given := ""
		for _, name := range flags {
			if !cmd.Flags().Changed(name) {
				continue
			}
			if given != "" {
				return Usagef("--%s and --%s exclude each other", given, name)
			}
			given = name
		}
		return check(cmd, args)
	}
}
