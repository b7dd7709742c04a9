package vm

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace with an interface on a segment.
func namespace(t *testing.T, s *Segment, iface, addr string) *Netns {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: a network namespace needs root")
	}
	ns, err := NewNetns()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	tap, err := s.Tap(ns, iface, netip.MustParsePrefix(addr))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENXIO) {
		t.Skipf("skipped: this kernel has no TAP interfaces: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tap.Close(); err != nil {
			t.Error(err)
		}
	})
	return ns
}

// Two kernels' worth of network talk over a segment: ARP, then TCP.
func TestTap(t *testing.T) {
	b := newBench(t, 1)
	server := namespace(t, b.Segment, "tap0", "192.0.2.1/24")
	client := namespace(t, b.Segment, "tap1", "192.0.2.2/24")
	var l net.Listener
	if err := server.Do(func() (err error) { l, err = net.Listen("tcp", "192.0.2.1:7"); return err }); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = io.Copy(c, c)
			err = errors.Join(err, c.Close())
		}
		served <- err
	}()
	err := client.Do(func() error {
		c, err := net.DialTimeout("tcp", "192.0.2.1:7", patience)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if _, err := c.Write(make([]byte, 1<<16)); err != nil {
			return err
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, c)
		if n != 1<<16 {
			t.Errorf("%d bytes came back", n)
		}
		return err
	})
	if err := errors.Join(err, <-served); err != nil {
		t.Fatal(err)
	}
	if s := b.Stats()["tap1"]; s.Sent < 40 || s.Received < 40 || s.Dropped+s.Invalid > 0 {
		t.Errorf("the port counted %+v", s)
	}
	// The caller's namespace is left alone.
	if _, err := net.InterfaceByName("tap1"); err == nil {
		t.Error("the interface is in the namespace of the test")
	}
}
