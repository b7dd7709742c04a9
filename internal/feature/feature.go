// Package feature examines whether this machine can be a node: for `ssi doctor`.
//
// Everything is tried, nothing is concluded from a version: a feature that a
// distribution compiled out or back-ported is seen as it is. What cannot be
// tried without root is reported as such, not as missing. Probes that need a
// namespace make it on a thread of their own that ends with the probe; nothing
// of the machine changes, except for one small file in the state directory that
// is written, synced and removed.
//
// Probe starts one goroutine for each probe that needs such a thread and waits
// for it. The package keeps no state and asks nothing of other machines; what
// the daemon knows of them is passed in. It must never repair what it finds.
package feature

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// Level is the outcome of one probe.
type Level string

// The levels.
const (
	OK      Level = "ok"
	Warn    Level = "warn"    // it works, worse than it could, or could not be examined
	Missing Level = "missing" // it does not work
)

// Result is what one probe found.
type Result struct {
	Area     string `json:"area"` // kernel, lab, network, clock, disk
	Name     string `json:"name"`
	Level    Level  `json:"level"`
	Required bool   `json:"required"` // a node cannot do without it
	Text     string `json:"text"`     // what was found
	Todo     string `json:"todo,omitempty"`
}

// Failed reports whether the machine cannot be a node because of this.
func (r Result) Failed() bool { return r.Required && r.Level == Missing }

// Options is what the probes need to know.
type Options struct {
	Listen   string  // [host]:port of the node
	StateDir string  // where a node keeps its state
	Running  bool    // a daemon serves this machine, so the port is in use
	Clocks   []Clock // of the other nodes, as the daemon knows them
}

// Clock is how far the wall clock of another node is from that of this one.
type Clock struct {
	Name   string
	Offset time.Duration
}

// Probe runs all probes in the order of the report. It stops early, with what it
// has, when ctx ends.
func Probe(ctx context.Context, opts Options) []Result {
	var results []Result
	for _, group := range []func(Options) []Result{kernel, lab, network, clock, disk} {
		if ctx.Err() != nil {
			break
		}
		results = append(results, group(opts)...)
	}
	return results
}

// outcome turns the error of a trial into a result. The errors that mean "not
// allowed" say nothing about the feature.
func outcome(r Result, found string, err error, todo string) Result {
	switch {
	case err == nil:
		r.Level, r.Text = OK, found
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, fs.ErrPermission):
		r.Level, r.Text, r.Todo = Warn, "not examined: "+err.Error(), "run `ssi doctor` as root"
	default:
		r.Level, r.Text, r.Todo = Missing, err.Error(), todo
	}
	return r
}

// inThread runs f on a thread that ends with it, so that f may change the
// namespaces of its thread.
func inThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		lockThread() // never unlocked: the runtime ends the thread
		done <- f()
	}()
	return <-done
}
