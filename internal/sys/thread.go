package sys

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// OnThread calls f on a thread that ends afterwards, so that f may change what
// belongs to a thread: its namespaces, root directory and bounding set.
func OnThread(f func() error) error {
	done := make(chan error, 1)
	go onThisThread(f, done)
	return <-done
}

func onThisThread(f func() error, done chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The main thread does not end. Keep it away from the next try.
		next := make(chan error, 1)
		go onThisThread(f, next)
		done <- <-next
		runtime.UnlockOSThread()
		return
	}
	// A goroutine that ends without UnlockOSThread takes its thread with it.
	done <- f()
}
