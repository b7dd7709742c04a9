// Package proc describes a process that is to be created, and how one ended.
//
// A Spec travels from the node where a command was typed to the spawn role of
// the node where it runs; each of them reads it with Decode, which trusts no
// byte. The package has no state and no goroutines. It must never decide what a
// process may: who fills a Spec in says where each value comes from.
//
// Limits: an encoded Spec has at most MaxSpec bytes.
package proc

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// MaxSpec is the size limit of an encoded Spec in bytes. It is below the
// 2 MiB that execve(2) allows for arguments and environment at the usual
// stack limit of 8 MiB.
const MaxSpec = 1 << 20

// Rlimit is one resource limit, with the numbers of getrlimit(2).
type Rlimit struct {
	Resource uint8
	Cur, Max uint64
}

// Spec is everything a new process gets.
type Spec struct {
	Argv []string // Argv[0] is the command; without a slash it is looked up in the PATH of Env
	Path string   // the file to execute, with a slash, as for execve(2); empty: what Argv[0] says, as for execvp(3)
	Env  []string // NAME=value
	Dir  string   // absolute path of the working directory

	UID, GID uint32
	Groups   []uint32 // supplementary groups
	Umask    uint16   // 0 to 0o777
	Nice     int8     // -20 to 19
	Limits   []Rlimit // those that are not listed are the spawn role's own

	// Session makes the process the child of a session leader that has file
	// 0 as its controlling terminal, so that it can be stopped and continued
	// from there. Without it the process is a session leader itself and has
	// no terminal.
	Session bool
	// Background puts the process of a Session into a background process group:
	// it is stopped when it reads the terminal.
	Background bool

	// Ignored are the signals that it ignores at first: bit n-1 for signal n. Only
	// the creator of processes that have a place does so.
	Ignored uint64
	// Place is where it stands; without one it gets a PID of its node, init is its
	// parent, and it is what Session says. With one Session means only that file 0
	// is the controlling terminal of Place.Session.
	Place Place
}

// Exit is how a process ended.
type Exit struct {
	PID    int32
	Status unix.WaitStatus
	// UserTime and SystemTime are in microseconds, MaxRSS in KiB (getrusage(2)).
	UserTime, SystemTime, MaxRSS int64
}

// Failure says why a process could not be created.
type Failure struct {
	Op    string     // what failed: "exec", "chdir", "fork"
	Path  string     // the file or directory concerned
	Errno unix.Errno // why
}

func (f *Failure) Error() string { return fmt.Sprintf("%s %s: %s", f.Op, f.Path, f.Errno.Error()) }

func (f *Failure) Unwrap() error { return f.Errno }

// ErrTooLong is the cause when arguments and environment exceed MaxSpec.
var ErrTooLong = errors.New("argument list and environment are too long")
