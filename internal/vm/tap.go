package vm

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Tap is an interface of a network namespace that is a port of a segment.
type Tap struct{ plug *plug }

// Tap makes an interface in a namespace and plugs it into the port of the same
// name: up, with this address and an MTU of 1500 bytes. The interface ends with
// the Tap.
func (s *Segment) Tap(ns *Netns, name string, addr netip.Prefix) (*Tap, error) {
	var f *os.File
	err := ns.Do(func() (err error) {
		if f, err = openTap(name); err != nil {
			return err
		}
		if err = configure(name, addr); err != nil {
			return errors.Join(err, f.Close())
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("segment %s: interface %s: %w", s.name, name, err)
	}
	p, err := s.plug(name, &tapWire{f: f, buf: make([]byte, frameMax)})
	if err != nil {
		return nil, err
	}
	return &Tap{p}, nil
}

// Close removes the interface; the port stays.
func (t *Tap) Close() error { return t.plug.unplug() }

// openTap makes a TAP interface in the namespace of the calling thread.
func openTap(name string) (*os.File, error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return nil, errors.Join(os.NewSyscallError("ioctl TUNSETIFF", err), unix.Close(fd))
	}
	// Only now: an unattached descriptor is not pollable.
	return os.NewFile(uintptr(fd), name), nil
}

// configure gives an interface of the calling thread's namespace its address.
func configure(name string, addr netip.Prefix) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(addr.String())
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(l, a); err != nil {
		return fmt.Errorf("address %v: %w", addr, err)
	}
	return netlink.LinkSetUp(l)
}

type tapWire struct {
	f   *os.File
	buf []byte
}

func (w *tapWire) receive() ([]byte, error) {
	n, err := w.f.Read(w.buf)
	return append([]byte(nil), w.buf[:n]...), err
}

// send drops what the interface does not take now (it is down, or the frame
// longer than its MTU), as a cable would.
func (w *tapWire) send(frame []byte) error {
	_, err := w.f.Write(frame)
	if errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM) {
		return nil
	}
	return err
}

func (w *tapWire) flush() error { return nil }

func (w *tapWire) Close() error { return w.f.Close() }
