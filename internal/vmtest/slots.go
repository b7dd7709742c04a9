package vmtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Slots is how many machines run at once on one computer, over all processes
// that test: the largest cluster of a test, and two machines of another. Without
// KVM each takes a processor while it boots, and little when it waits.
const Slots = 6

// takeSlots waits for the slots of so many machines, all if it is more than
// there are, and gives them back with the test.
func takeSlots(t testing.TB, machines int) {
	t.Helper()
	ctx, cancel := testContext(t)
	defer cancel()
	held, err := slots(ctx, cacheDir(t, "locks"), machines)
	if err != nil {
		t.Fatalf("wait until fewer machines run: %v", err)
	}
	t.Cleanup(func() { closeAll(held) })
}

// slots locks slots; closing the files gives them back.
func slots(ctx context.Context, dir string, machines int) (held []*os.File, err error) {
	queue, err := lock(ctx, dir, "queue")
	if err != nil {
		return nil, err
	}
	defer queue.Close()
	for {
		for i := 0; i < Slots && len(held) < min(machines, Slots); i++ {
			// Slots that this call holds are refused too: each open file is an owner.
			f, err := tryLock(dir, fmt.Sprintf("slot%d", i))
			switch {
			case err == nil:
				held = append(held, f)
			case !errors.Is(err, unix.EWOULDBLOCK):
				closeAll(held)
				return nil, err
			}
		}
		if len(held) == min(machines, Slots) {
			return held, nil
		}
		select {
		case <-ctx.Done():
			closeAll(held)
			return nil, fmt.Errorf("other tests run %d machines or more: %w", Slots-len(held), ctx.Err())
		case <-time.After(pollTime):
		}
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
