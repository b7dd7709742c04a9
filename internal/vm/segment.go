package vm

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

const (
	maxTable    = 4096
	frameMin    = 14          // destination, source, type: IEEE 802.3
	frameMax    = 64<<10 + 14 // above every MTU
	groupBit    = 1           // in the first byte of an address: broadcast and multicast
	hardwareLen = 6
)

type hardware [hardwareLen]byte

// Segment is an Ethernet segment: a learning bridge, without spanning tree,
// VLANs or aging. An address moves when its owner sends from another port, and
// is forgotten when its port is unplugged.
type Segment struct {
	name string

	mu      sync.Mutex
	closed  bool
	ports   map[string]*port
	table   map[hardware]*port
	faults  *faults
	capture *capture
}

// port is a place of a segment. It stays, with its faults and counters, while
// nothing is plugged in.
type port struct {
	name  string
	plug  *plug
	stats Stats
}

// Stats counts the frames of a port.
type Stats struct {
	Sent     uint64 // by what is plugged in
	Received uint64 // by it, or on the way to it
	Lost     uint64 // by faults, on the way to it
	Dropped  uint64 // on the way to it, because too many waited
	Invalid  uint64 // sent by it, and no frames
}

func newSegment(name string, seed uint64) *Segment {
	return &Segment{name: name, ports: map[string]*port{}, table: map[hardware]*port{}, faults: newFaults(seed)}
}

// Name is the name of the segment.
func (s *Segment) Name() string { return s.name }

// SetFault sets what happens to frames from one port to another; "" is every
// port. So SetFault("a", "", f) concerns what a sends, SetFault("", "a", f) what
// it receives, and all faults that match add up. The zero Fault removes. Frames
// that are under way already are not concerned. A NIC's port is PortName; the
// port of a Host or Tap has the name it was made with. A port that does not
// exist is an error.
func (s *Segment) SetFault(from, to string, f Fault) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range []string{from, to} {
		if name != "" && s.ports[name] == nil {
			return fmt.Errorf("segment %s: fault: there is no port %q", s.name, name)
		}
	}
	if err := s.faults.put(pair{from, to}, f); err != nil {
		return fmt.Errorf("segment %s: fault: %w", s.name, err)
	}
	return nil
}

// ClearFaults removes all faults.
func (s *Segment) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.faults.set)
}

// Stats is what each port counted so far, by its name.
func (s *Segment) Stats() map[string]Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]Stats, len(s.ports))
	for name, p := range s.ports {
		all[name] = p.stats
	}
	return all
}

// Capture writes every frame that is sent on the segment to a new file in pcap
// format, with the time it was sent, before faults and drops. The file is
// complete when the segment is closed.
func (s *Segment) Capture(path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.capture != nil {
		return fmt.Errorf("segment %s: capture: it is closed or captured already", s.name)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("segment %s: capture: %w", s.name, err)
	}
	s.capture = newCapture(f)
	return nil
}

// addPort makes sure that there is a port with this name.
func (s *Segment) addPort(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addPortLocked(name)
}

func (s *Segment) addPortLocked(name string) error {
	switch {
	case s.closed:
		return fmt.Errorf("segment %s: it is closed", s.name)
	case name == "":
		return fmt.Errorf("segment %s: a port needs a name", s.name)
	case s.ports[name] != nil:
		return nil
	case len(s.ports) >= MaxPorts:
		return fmt.Errorf("segment %s: it has %d ports already", s.name, MaxPorts)
	}
	s.ports[name] = &port{name: name}
	return nil
}

// forward sends a frame that came from a port to where it belongs. The frame
// must not be changed any more.
func (s *Segment) forward(from *port, frame []byte) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(frame) < frameMin || len(frame) > frameMax || frame[hardwareLen]&groupBit != 0 {
		from.stats.Invalid++
		return
	}
	from.stats.Sent++
	if s.capture != nil {
		s.capture.frame(now, frame)
	}
	to := s.route(from, frame)
	switch to {
	case from: // the bridge is no mirror
	case nil:
		for _, p := range s.ports {
			if p != from {
				s.deliver(from, p, frame, now)
			}
		}
	default:
		s.deliver(from, to, frame, now)
	}
}

// route learns where the sender of a frame is and returns where its receiver
// is, or nil for everywhere.
func (s *Segment) route(from *port, frame []byte) *port {
	dst, src := hardware(frame[:hardwareLen]), hardware(frame[hardwareLen:2*hardwareLen])
	if _, known := s.table[src]; known || len(s.table) < maxTable {
		s.table[src] = from
	}
	if dst[0]&groupBit != 0 {
		return nil
	}
	return s.table[dst]
}

func (s *Segment) deliver(from, to *port, frame []byte, now time.Time) {
	if to.plug == nil {
		return
	}
	delay, lost := s.faults.decide(from.name, to.name)
	switch {
	case lost:
		to.stats.Lost++
	case !to.plug.queue.Put(frame, now.Add(delay)):
		to.stats.Dropped++
	default:
		to.stats.Received++
	}
}

// close unplugs everything and completes the capture.
func (s *Segment) close() error {
	s.mu.Lock()
	s.closed = true
	var plugs []*plug
	for _, p := range s.ports {
		if p.plug != nil {
			plugs = append(plugs, p.plug)
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, p := range plugs {
		errs = append(errs, p.unplug())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.capture != nil {
		errs = append(errs, s.capture.close())
		s.capture = nil
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("segment %s: close: %w", s.name, err)
	}
	return nil
}
