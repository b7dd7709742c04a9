package boot

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// clockFile is the name, in the state directory, of the file whose time of
// modification is the last that is known to have passed.
const clockFile = "clock"

// setClock sets the clock forward if it is earlier than the binary, or than the
// last end of the machine: then the kernel found no clock that runs without power.
func (b *boot) setClock(context.Context, func(string)) (string, error) {
	now := time.Now()
	least, why := earliest(b.o.BuildTime, filepath.Join(b.o.StateDir, clockFile))
	if !now.Before(least) {
		return now.UTC().Format(time.DateTime + " UTC"), nil
	}
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, new(unix.NsecToTimespec(least.UnixNano()))); err != nil {
		return "", fmt.Errorf("set the clock: %w", err)
	}
	return fmt.Sprintf("set from %s to %s, the time of %s", now.UTC().Format(time.DateTime), least.UTC().Format(time.DateTime+" UTC"), why), nil
}

// earliest is the time that must have passed, and what says so.
func earliest(build time.Time, file string) (t time.Time, why string) {
	t, why = build, "this binary"
	if info, err := os.Stat(file); err == nil && info.ModTime().After(t) {
		t, why = info.ModTime(), "the last shutdown"
	}
	return t, why
}

// saveClock notes that now has passed.
func saveClock(stateDir string, now time.Time) error {
	path := filepath.Join(stateDir, clockFile)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Chtimes(path, now, now)
}
