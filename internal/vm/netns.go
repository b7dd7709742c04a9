package vm

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Netns is a network namespace of its own, with its loopback up: a place for
// servers that take part in a segment by a Tap. It needs CAP_NET_ADMIN and
// CAP_SYS_ADMIN. It ends when it is closed and nothing uses it.
type Netns struct{ f *os.File }

// NewNetns makes a network namespace.
func NewNetns() (*Netns, error) {
	n := new(Netns)
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		n.f = f
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("loopback: %w", err), f.Close())
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	return n, nil
}

// Do calls f on a thread in the namespace, which ends with f. Sockets that f
// makes and processes that f starts stay in the namespace; goroutines do not.
func (n *Netns) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.f.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", os.NewSyscallError("setns", err))
		}
		return f()
	})
}

// Close gives the namespace up.
func (n *Netns) Close() error { return n.f.Close() }

// onThread calls f on a thread that ends afterwards, so that f may change what
// belongs to a thread.
func onThread(f func() error) error {
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
