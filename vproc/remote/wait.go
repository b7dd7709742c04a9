package remote

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// waitTime is how long one Wait waits; then the other side asks anew.
const waitTime = 5 * time.Second

// waitsPerNode is how many a node may have at a time: one, and one that it has
// given up without this side knowing yet.
const waitsPerNode = 4

// ServeWait waits until one at least of the processes that node from names has
// ended.
func (m *Remote) ServeWait(ctx context.Context, from id.Node, b []byte) ([]byte, error) {
	ts, err := decodeTargets(b)
	if err != nil {
		return nil, errno.New(errno.Invalid, "wait", m.self, "from node %d: %w", from, err)
	}
	if !m.enterWait(from) {
		return nil, errno.New(errno.Full, "wait", m.self, "node %d waits %d times already", from, waitsPerNode)
	}
	defer m.leaveWait(from)
	ctx, leave, ok := m.enter(ctx, waitTime)
	if !ok {
		return nil, m.errClosed("wait")
	}
	defer leave()
	ended, err := m.waitFor(ctx, ts)
	if err != nil {
		return nil, errno.New(errno.Full, "wait", m.self, "for %d processes: %w", len(ts), err)
	}
	return encodePlaces(ended), nil
}

func (m *Remote) enterWait(n id.Node) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waits[n] >= waitsPerNode {
		return false
	}
	m.waits[n]++
	return true
}

func (m *Remote) leaveWait(n id.Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waits[n]--; m.waits[n] == 0 {
		delete(m.waits, n)
	}
}

// waitFor waits until some of ts have ended, or ctx.
func (m *Remote) waitFor(ctx context.Context, ts []target) (ended []int, err error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	fds := make([]unix.PollFd, 1, len(ts)+1)
	fds[0] = unix.PollFd{Fd: int32(wake), Events: unix.POLLIN}
	defer func() {
		for _, p := range fds {
			_ = unix.Close(int(p.Fd))
		}
	}()
	var places []int // of fds[1:] in ts
	for i := range ts {
		fd, err := m.openTarget(&ts[i])
		switch {
		case err == nil:
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOMEM):
			return nil, err
		default:
			ended = append(ended, i)
			continue
		}
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		places = append(places, i)
	}
	timeout := -1
	if len(ended) > 0 {
		timeout = 0
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		_, _ = unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	})
	for {
		_, err = unix.Poll(fds, timeout)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if !stop() {
		<-stopped
	}
	if err != nil {
		return nil, fmt.Errorf("poll: %w", err)
	}
	for i, p := range fds[1:] {
		if p.Revents != 0 {
			ended = append(ended, places[i])
		}
	}
	return ended, nil
}
