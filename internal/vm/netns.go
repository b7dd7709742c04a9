package vm

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ssi/internal/sys"
)

// Netns is a network namespace of its own, with its loopback up: a place for
// servers that take part in a segment by a Tap. It needs CAP_NET_ADMIN and
// CAP_SYS_ADMIN. It ends when it is closed and nothing uses it.
type Netns struct{ f *os.File }

// NewNetns makes a network namespace.
func NewNetns() (*Netns, error) {
	n := new(Netns)
	err := sys.OnThread(func() error {
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
	return sys.OnThread(func() error {
		if err := unix.Setns(int(n.f.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", os.NewSyscallError("setns", err))
		}
		return f()
	})
}

// Close gives the namespace up.
func (n *Netns) Close() error { return n.f.Close() }
