package raftlog

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// DamagedError says that a log cannot be used without the danger of forgetting
// what was promised to other voters.
type DamagedError struct {
	Dir    string // of the log
	File   string // in Dir; may be empty
	Offset int64  // in File in bytes, or -1
	Why    string
	Err    error // the cause, or nil
}

func (e *DamagedError) Error() string {
	at := e.File
	if at != "" {
		if e.Offset >= 0 {
			at = fmt.Sprintf("%s at byte %d", at, e.Offset)
		}
		at += ": "
	}
	why := e.Why
	if e.Err != nil {
		why += ": " + e.Err.Error()
	}
	return fmt.Sprintf("raft log %s is damaged: %s%s; this node refuses to start with a damaged log: if the cluster has other voters they hold the data: move %s away and let the node rejoin (ssi cluster rejoin); if this was its only voter, restore that directory from a backup",
		e.Dir, at, why, e.Dir)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// damaged makes a DamagedError about a file of a log, whose path is
// DIR/r-RECOVERY/FILE.
func damaged(path string, offset int64, err error, format string, args ...any) *DamagedError {
	sub := filepath.Dir(path)
	return &DamagedError{
		Dir: filepath.Dir(sub), File: filepath.Join(filepath.Base(sub), filepath.Base(path)),
		Offset: offset, Why: fmt.Sprintf(format, args...), Err: err,
	}
}

// full reports whether err means that there is no space left, which may change.
func full(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// writeError puts the directory and what to do to a failure of writing.
func (l *Log) writeError(op string, err error) error {
	if full(err) {
		return fmt.Errorf("raft log %s: %s: %w; free space on its file system, nothing acknowledged is lost", l.dir, op, err)
	}
	return fmt.Errorf("raft log %s: %s: %w", l.dir, op, err)
}
