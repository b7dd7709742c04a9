package pid1

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// watchdogFile is the hardware watchdog; see watchdog-api.rst of the kernel.
const watchdogFile = "/dev/watchdog"

// watchdog resets the machine when PID 1's loop stands still. Its zero value is
// off; the main loop owns it.
type watchdog struct {
	f     *os.File
	every time.Duration // a third of its time
	next  time.Time
}

// open arms it: it resets the machine after t without a ping, or after what the
// hardware makes of t.
func (w *watchdog) open(path string, t time.Duration) error {
	if w.f == nil {
		f, err := os.OpenFile(path, os.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("watchdog: %w", err)
		}
		w.f = f
	}
	fd := int(w.f.Fd())
	_ = unix.IoctlSetPointerInt(fd, unix.WDIOC_SETTIMEOUT, int(t/time.Second)) // some have one time only
	if got, err := unix.IoctlGetInt(fd, unix.WDIOC_GETTIMEOUT); err == nil && got > 0 {
		t = time.Duration(got) * time.Second
	}
	w.every = max(t/3, time.Second/3)
	w.ping(time.Now())
	return nil
}

// ping tells it that this process lives, if it is time to.
func (w *watchdog) ping(now time.Time) {
	if w.f != nil && !now.Before(w.next) {
		_, _ = w.f.Write([]byte{0})
		w.next = now.Add(w.every)
	}
}

// wait is how long the loop may wait at most.
func (w *watchdog) wait(now time.Time) time.Duration {
	if w.f == nil {
		return time.Hour
	}
	return max(w.next.Sub(now), 0)
}

// close disarms it: "V" tells the driver that the end is meant.
func (w *watchdog) close() {
	if w.f != nil {
		_, _ = w.f.Write([]byte("V"))
		_ = w.f.Close()
		w.f = nil
	}
}
