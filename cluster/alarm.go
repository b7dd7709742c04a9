package cluster

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// alarm wakes one goroutine at a time of CLOCK_BOOTTIME: timerfd_create(2). Go's
// own timers stand still while the machine sleeps, leases do not.
type alarm struct{ f *os.File }

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("timerfd: %w", err)
	}
	return &alarm{os.NewFile(uintptr(fd), "timerfd")}, nil
}

// set makes the alarm go off at the time at, instead of at any other; 0 is never.
func (a *alarm) set(at time.Duration) error {
	raw, err := a.f.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(at))}
	err = raw.Control(func(fd uintptr) { serr = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME, &spec, nil) })
	if err == nil {
		err = serr
	}
	return err
}

// wait waits until the alarm goes off or ctx ends.
func (a *alarm) wait(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = a.f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var expirations [8]byte
	_, _ = a.f.Read(expirations[:]) // an error is the deadline: ctx has ended
}

func (a *alarm) close() { _ = a.f.Close() }
