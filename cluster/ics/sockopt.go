package ics

import (
	"context"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// callUserTimeout ends a connection for calls whose data the peer's kernel
	// does not acknowledge. Bulk has none: the kernel also counts the time a reader
	// rests with a full window (tcp_probe_timer), which is no fault there.
	callUserTimeout = 15 * time.Second

	// notSent keeps data of bulk streams in the process until the network takes
	// it, so that the kernel's queue stays short.
	notSent = 256 << 10

	// tcpRTOMax (TCP_RTO_MAX_MS, Linux 6.15) bounds the pause between
	// retransmissions, so that a healed link is used at once.
	tcpRTOMax   = 44
	rtoMaxMilli = 1000

	dscpControl = 0xc0 // CS6, network control (RFC 4594)
	dscpBulk    = 0x20 // CS1, low priority data (RFC 3662)
	prioControl = 6    // TC_PRIO_INTERACTIVE: the first band of pfifo_fast
	prioBulk    = 2    // TC_PRIO_BULK
)

func dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

// tune sets the socket options of a protocol. They are all wishes: a kernel
// that does not know one still carries the data, hence no errors here.
func tune(c net.Conn, proto string, lim Limits) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 4})
	_ = raw.Control(func(fd uintptr) {
		set := func(level, name, value int) { _ = unix.SetsockoptInt(int(fd), level, name, value) }
		set(unix.IPPROTO_TCP, tcpRTOMax, rtoMaxMilli)
		switch proto {
		case protoRaft:
			setClass(set, dscpControl, prioControl)
			set(unix.IPPROTO_TCP, unix.TCP_THIN_LINEAR_TIMEOUTS, 1)
			set(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(lim.MessageTimeout.Milliseconds()))
		case protoICS:
			set(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(callUserTimeout.Milliseconds()))
		case protoBulk:
			setClass(set, dscpBulk, prioBulk)
			set(unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSent)
		}
	})
}

// setClass marks packets and orders them in this node's own queues; the
// priority comes last because setting IP_TOS changes it.
func setClass(set func(level, name, value int), tos, prio int) {
	set(unix.IPPROTO_IP, unix.IP_TOS, tos)
	set(unix.IPPROTO_IPV6, unix.IPV6_TCLASS, tos)
	set(unix.SOL_SOCKET, unix.SO_PRIORITY, prio)
}

// socketPair is a connection of the node with itself, with half-close.
func socketPair() (a, b net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	if a, err = fileConn(fds[0]); err != nil {
		_ = syscall.Close(fds[1])
		return nil, nil, err
	}
	if b, err = fileConn(fds[1]); err != nil {
		_ = a.Close()
		return nil, nil, err
	}
	return a, b, nil
}

func fileConn(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "ics")
	defer f.Close() // FileConn has a duplicate
	return net.FileConn(f)
}
