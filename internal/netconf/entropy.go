package netconf

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// errNoRandom is what a client waits for on a machine that has just started.
var errNoRandom = errors.New("the kernel has no random numbers yet, which DHCP needs")

// awaitRandom waits until the kernel gives random numbers. The DHCP library
// would wait itself, up to two minutes without an end on request, in a loop
// that gives the kernel nothing to gather randomness from. Reading /dev/urandom
// makes the kernel gather it at once (drivers/char/random.c, urandom_read_iter),
// which takes about a second.
func awaitRandom(ctx context.Context, failed func(error)) {
	var b [1]byte
	for tries := 0; ctx.Err() == nil; tries++ {
		if _, err := unix.Getrandom(b[:], unix.GRND_NONBLOCK); !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			if tries > 0 {
				failed(nil)
			}
			return // any other error is better told by whoever needs the numbers
		}
		failed(errNoRandom)
		if f, err := os.Open("/dev/urandom"); err == nil {
			_, _ = f.Read(b[:]) // for its effect
			f.Close()
		}
		timer := time.NewTimer(100 * time.Millisecond)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}
