package ntp

import (
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// Clock is what is disciplined.
type Clock interface {
	// Adjust makes the clock run faster by ppm parts per million (negative:
	// slower) and lets it slew the offset, instead of what is left of an earlier
	// one. Both are absolute, not relative to what they were.
	Adjust(ppm float64, slew time.Duration) error
	// Step sets the clock forward by d at once, or back, and ends a slew.
	Step(d time.Duration) error
}

// kernelClock is the system clock, by adjtimex(2). It needs CAP_SYS_TIME.
type kernelClock struct{}

// SystemClock is the clock of this machine.
func SystemClock() Clock { return kernelClock{} }

// Bounds that adjtimex(2) tells programs that ask how good the time is, in
// microseconds. The kernel makes the first grow by 500 a second and calls the
// clock unsynchronised at 16 seconds.
const (
	maxError = 10_000
	estError = 1_000
)

func (kernelClock) Adjust(ppm float64, slew time.Duration) error {
	// The kernel counts in 2^-16 ppm; it takes at most ±500 ppm.
	t := unix.Timex{
		Modes:    unix.ADJ_FREQUENCY | unix.ADJ_STATUS | unix.ADJ_MAXERROR | unix.ADJ_ESTERROR,
		Freq:     int64(math.Round(ppm * 65536)),
		Maxerror: maxError, Esterror: estError,
	}
	// Status 0: neither unsynchronised (so the kernel also keeps the hardware
	// clock right) nor with the kernel's own loop.
	if _, err := unix.Adjtimex(&t); err != nil {
		return fmt.Errorf("set the frequency of the clock (adjtimex): %w", err)
	}
	return singleshot(slew)
}

// singleshot lets the kernel slew d, whole microseconds, and nothing else.
func singleshot(d time.Duration) error {
	t := unix.Timex{Modes: unix.ADJ_OFFSET_SINGLESHOT, Offset: int64(math.Round(float64(d) / float64(time.Microsecond)))}
	if _, err := unix.Adjtimex(&t); err != nil {
		return fmt.Errorf("slew the clock (adjtimex): %w", err)
	}
	return nil
}

func (kernelClock) Step(d time.Duration) error {
	if err := singleshot(0); err != nil {
		return err
	}
	// ADJ_SETOFFSET adds to the clock; the part below a second is not negative.
	sec, nsec := int64(d/time.Second), int64(d%time.Second)
	if nsec < 0 {
		sec, nsec = sec-1, nsec+int64(time.Second)
	}
	t := unix.Timex{Modes: unix.ADJ_SETOFFSET | unix.ADJ_NANO, Time: unix.Timeval{Sec: sec, Usec: nsec}}
	if _, err := unix.Adjtimex(&t); err != nil {
		return fmt.Errorf("set the clock (adjtimex): %w", err)
	}
	return nil
}
