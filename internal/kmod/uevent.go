package kmod

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxEvent    = 16 << 10 // bytes; the kernel's are below 2048 + a path
	maxKeys     = 128
	eventBuffer = 4 << 20 // bytes of the socket: some thousand events of a machine that starts
)

// Event is what the kernel says when a device comes, goes or changes.
type Event struct {
	Action    string // add, remove, change, bind, unbind, move, online, offline
	Path      string // of the device, below /sys
	Subsystem string
	Modalias  string // "" if it needs no driver
	Name      string // in /dev; "" if it has no node
	Type      string // of a block device: disk or partition
}

// ParseEvent reads a datagram of lib/kobject_uevent.c: "add@/devices/…", then
// KEY=value, all ended by NUL.
func ParseEvent(b []byte) (Event, error) {
	if len(b) > maxEvent {
		return Event{}, fmt.Errorf("kernel event of %d bytes, more than %d", len(b), maxEvent)
	}
	head, rest, ended := bytes.Cut(b, []byte{0})
	action, path, ok := strings.Cut(string(head), "@")
	if !ended || !ok || action == "" || !strings.HasPrefix(path, "/") {
		return Event{}, fmt.Errorf("kernel event begins with %.40q, not with action@path", head)
	}
	e := Event{Action: action, Path: path}
	n := 0
	for field := range bytes.SplitSeq(rest, []byte{0}) {
		if n++; n > maxKeys {
			return Event{}, fmt.Errorf("kernel event %.80q has more than %d keys", head, maxKeys)
		}
		key, value, _ := strings.Cut(string(field), "=")
		switch key {
		case "ACTION":
			if value != action {
				return Event{}, fmt.Errorf("kernel event %.80q says action %.20q, too", head, value)
			}
		case "DEVPATH":
			if value != path {
				return Event{}, fmt.Errorf("kernel event %.80q says path %.80q, too", head, value)
			}
		case "SUBSYSTEM":
			e.Subsystem = value
		case "MODALIAS":
			e.Modalias = value
		case "DEVNAME":
			e.Name = value
		case "DEVTYPE":
			e.Type = value
		}
	}
	return e, nil
}

// errOverflow says that the kernel had more events than the socket holds.
var errOverflow = errors.New("kernel events were lost")

// Events is a socket for the kernel's events of this network namespace; only
// the first one of a machine gets those of hardware.
type Events struct{ file *os.File }

// Listen opens it.
func Listen() (*Events, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("listen for kernel events: %w", err)
	}
	// Best effort: without the right to, events may be lost sooner.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, eventBuffer)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("listen for kernel events: %w", err)
	}
	return &Events{os.NewFile(uintptr(fd), "uevents")}, nil
}

// Close ends a Next that waits.
func (s *Events) Close() error { return s.file.Close() }

// Next waits for an event. What others than the kernel send, and what is no
// event, is passed over. The error is errOverflow if some were lost, else that
// of ctx or of the socket.
func (s *Events) Next(ctx context.Context) (Event, error) {
	if err := s.file.SetReadDeadline(time.Time{}); err != nil {
		return Event{}, fmt.Errorf("wait for kernel events: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := s.file.SyscallConn()
	if err != nil {
		return Event{}, err
	}
	buf := make([]byte, maxEvent+1)
	for {
		if err := ctx.Err(); err != nil {
			return Event{}, err
		}
		var n int
		var from unix.Sockaddr
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			n, from, failed = unix.Recvfrom(int(fd), buf, 0)
			return !errors.Is(failed, unix.EAGAIN) && !errors.Is(failed, unix.EINTR)
		})
		switch {
		case ctx.Err() != nil:
			return Event{}, ctx.Err()
		case err != nil:
			return Event{}, fmt.Errorf("wait for kernel events: %w", err)
		case errors.Is(failed, unix.ENOBUFS):
			return Event{}, errOverflow
		case failed != nil:
			return Event{}, fmt.Errorf("wait for kernel events: %w", failed)
		}
		// Every process may send to a netlink socket; only the kernel's port is 0.
		if nl, ok := from.(*unix.SockaddrNetlink); !ok || nl.Pid != 0 {
			continue
		}
		if e, err := ParseEvent(buf[:n]); err == nil {
			return e, nil
		}
	}
}
