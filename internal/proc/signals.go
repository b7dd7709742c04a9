package proc

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"ssi/internal/sys"
)

// DefaultSignals makes what this process starts from now on begin with the default
// actions of all signals, whatever was ignored when this process itself was
// started: by nohup(1), by a shell in the background, or by make(1), whose
// posix_spawn(3) ignores signals that the C library keeps to itself. Of those the
// Go runtime handles 33, and leaves 32 alone.
//
// Exec sets a signal that has a handler back to its default action and leaves an
// ignored one ignored, so a handler that does nothing is what is needed here.
func DefaultSignals() {
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGPIPE)
	_, _ = sys.SetAction(32, sys.Action{}) // cannot fail: the number is that of a signal
}
