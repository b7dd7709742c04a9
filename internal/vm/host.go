package vm

import (
	"context"
	"fmt"
	"io"
	"sync"
)

const hostFrames = 1024 // received frames that a Host holds

// Host is a port whose frames are sent and received in Go.
type Host struct {
	plug *plug
	wire *hostWire
}

// Host makes a port for Go code.
func (s *Segment) Host(name string) (*Host, error) {
	w := &hostWire{in: make(chan []byte), out: make(chan []byte, hostFrames), done: make(chan struct{})}
	p, err := s.plug(name, w)
	if err != nil {
		return nil, err
	}
	return &Host{p, w}, nil
}

// Send sends a frame: 14 (header only) to 64 KiB + 14 bytes, without checksum;
// what is no frame is dropped and counted. The frame is copied.
func (h *Host) Send(ctx context.Context, frame []byte) error {
	select {
	case h.wire.in <- append([]byte(nil), frame...):
		return nil
	case <-h.wire.done:
		return fmt.Errorf("port %s: send: %w", h.plug.port.name, io.ErrClosedPipe)
	case <-ctx.Done():
		return fmt.Errorf("port %s: send: %w", h.plug.port.name, ctx.Err())
	}
}

// Recv waits for the next frame to this port; other ports may have got the same
// memory, so it must not be changed. Frames beyond the last 1024 that nobody
// received are lost.
func (h *Host) Recv(ctx context.Context) ([]byte, error) {
	select {
	case f := <-h.wire.out:
		return f, nil
	case <-h.wire.done:
		return nil, fmt.Errorf("port %s: receive: %w", h.plug.port.name, io.EOF)
	case <-ctx.Done():
		return nil, fmt.Errorf("port %s: receive: %w", h.plug.port.name, ctx.Err())
	}
}

// Close unplugs the host; the port stays.
func (h *Host) Close() error { return h.plug.unplug() }

type hostWire struct {
	in, out chan []byte
	once    sync.Once
	done    chan struct{}
}

func (w *hostWire) receive() ([]byte, error) {
	select {
	case f := <-w.in:
		return f, nil
	case <-w.done:
		return nil, io.EOF
	}
}

func (w *hostWire) send(frame []byte) error {
	for {
		select {
		case w.out <- frame:
			return nil
		default:
		}
		select { // the oldest goes, so that who looks late sees the present
		case <-w.out:
		default:
		}
	}
}

func (w *hostWire) flush() error { return nil }

func (w *hostWire) Close() error {
	w.once.Do(func() { close(w.done) })
	return nil
}
