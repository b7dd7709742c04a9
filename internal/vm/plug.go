package vm

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"ssi/internal/delay"
)

// wire is the far end of a port. One goroutine receives, one sends and flushes;
// Close ends both, also when they wait.
type wire interface {
	receive() ([]byte, error) // the next frame from there; the caller's own
	send(frame []byte) error
	flush() error
	Close() error
}

// plug is a wire in a port.
type plug struct {
	seg   *Segment
	port  *port
	wire  wire
	queue *delay.Line

	close  sync.Once
	wg     sync.WaitGroup
	mu     sync.Mutex
	err    error // the first failure that is not the end of the wire
	result error // of closing the wire
}

// plug puts a wire into a port and makes the port if there is none. It owns the
// wire afterwards, also if it fails.
func (s *Segment) plug(name string, w wire) (*plug, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.addPortLocked(name)
	if err == nil && s.ports[name].plug != nil {
		err = fmt.Errorf("segment %s: port %s is in use", s.name, name)
	}
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	p := &plug{seg: s, port: s.ports[name], wire: w, queue: newQueue()}
	p.port.plug = p
	p.wg.Go(p.receive)
	p.wg.Go(func() {
		p.failed(p.queue.Run(w.send, w.flush))
		p.end()
	})
	return p, nil
}

func (p *plug) receive() {
	for {
		frame, err := p.wire.receive()
		if err != nil {
			p.failed(err)
			p.end()
			return
		}
		p.seg.forward(p.port, frame)
	}
}

// failed keeps the first error that is more than the end of the wire.
func (p *plug) failed(err error) {
	if err == nil || ended(err) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
}

// end takes the plug out of its port; both goroutines end then.
func (p *plug) end() {
	p.close.Do(func() {
		p.seg.mu.Lock()
		p.port.plug = nil
		for addr, at := range p.seg.table {
			if at == p.port {
				delete(p.seg.table, addr)
			}
		}
		p.seg.mu.Unlock()
		p.queue.Close(false)
		p.result = p.wire.Close()
	})
}

// unplug ends the plug, waits for it and returns why it failed, if it did.
func (p *plug) unplug() error {
	p.end()
	p.wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	err := errors.Join(p.err, p.result)
	if err != nil {
		return fmt.Errorf("port %s: %w", p.port.name, err)
	}
	return nil
}

// ended reports whether an error is how a wire ends when its far end goes.
func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) || gone(err)
}
