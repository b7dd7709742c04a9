package vm

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Network is machines and the segments between them. Close it.
type Network struct {
	// Limit is how many machines may be on at once; 0 is MaxMachines. Set it before
	// the first is on: each takes a CPU while it works, and its memory.
	Limit int

	dir  string
	seed uint64

	mu       sync.Mutex
	closed   bool
	on       int
	segments map[string]*Segment
	machines map[string]*Machine
	macs     map[hardware]bool
}

// New makes a network without machines. The directory must exist and belong to
// it alone: the consoles (NAME.console), what QEMU says (NAME.qemu), the
// variables of UEFI (NAME.vars) go there. The seed decides about lost frames.
func New(dir string, seed uint64) (*Network, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("network: %s must be a directory", dir)
	}
	return &Network{dir: dir, seed: seed, segments: map[string]*Segment{}, machines: map[string]*Machine{}, macs: map[hardware]bool{}}, nil
}

// Dir is the directory of the network, as an absolute path.
func (n *Network) Dir() string { return n.dir }

// Segment is the segment with this name, which need not exist before.
func (n *Network) Segment(name string) (*Segment, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.segment(name)
}

func (n *Network) segment(name string) (*Segment, error) {
	if s := n.segments[name]; s != nil {
		return s, nil
	}
	switch {
	case n.closed:
		return nil, errors.New("network: it is closed")
	case !validName(name):
		return nil, fmt.Errorf("network: segment %q: a name is 1 to %d of a-z, 0-9 and '-'", name, maxName)
	case len(n.segments) >= MaxSegments:
		return nil, fmt.Errorf("network: segment %s: there are %d already", name, MaxSegments)
	}
	s := newSegment(name, n.seed)
	n.segments[name] = s
	return s, nil
}

// Machine makes a machine, which is off.
func (n *Network) Machine(spec Spec) (*Machine, error) {
	spec, err := spec.check()
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed:
		return nil, errors.New("network: it is closed")
	case n.machines[spec.Name] != nil:
		return nil, fmt.Errorf("machine %s: there is one already", spec.Name)
	case len(n.machines) >= MaxMachines:
		return nil, fmt.Errorf("machine %s: the network has %d machines already", spec.Name, MaxMachines)
	}
	m := &Machine{net: n, spec: spec}
	for i := range spec.NICs {
		nic := &spec.NICs[i]
		if nic.MAC == nil {
			nic.MAC = n.freeMAC()
		}
		if n.macs[hardware(nic.MAC)] {
			return nil, fmt.Errorf("machine %s: NIC %d: %v is another one's address", spec.Name, i, nic.MAC)
		}
		n.macs[hardware(nic.MAC)] = true
		s, err := n.segment(nic.Segment)
		if err != nil {
			return nil, fmt.Errorf("machine %s: NIC %d: %w", spec.Name, i, err)
		}
		if err := s.addPort(PortName(spec.Name, i)); err != nil {
			return nil, fmt.Errorf("machine %s: NIC %d: %w", spec.Name, i, err)
		}
		m.segments = append(m.segments, s)
	}
	if m.console, err = newConsole(spec.Name, m.file("console")); err != nil {
		return nil, err
	}
	n.machines[spec.Name] = m
	return m, nil
}

// freeMAC is an address that no NIC has, in the range that QEMU's machines use.
func (n *Network) freeMAC() net.HardwareAddr {
	for i := 1; ; i++ {
		a := hardware{0x52, 0x54, 0, 0x77, byte(i >> 8), byte(i)}
		if !n.macs[a] {
			return a[:]
		}
	}
}

// Machines are the machines, by name.
func (n *Network) Machines() []*Machine {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []*Machine
	for _, m := range n.machines {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *Machine) int { return strings.Compare(a.spec.Name, b.spec.Name) })
	return all
}

// Segments are the segments, by name.
func (n *Network) Segments() []*Segment {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []*Segment
	for _, s := range n.segments {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *Segment) int { return strings.Compare(a.name, b.name) })
	return all
}

// enter counts a machine that is going on.
func (n *Network) enter() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	limit := n.Limit
	if limit == 0 {
		limit = MaxMachines
	}
	switch {
	case n.closed:
		return errors.New("its network is closed")
	case n.on >= limit:
		return fmt.Errorf("%d machines are on already, the limit", n.on)
	}
	n.on++
	return nil
}

func (n *Network) leave() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.on--
}

// Close cuts the power of all machines and ends the segments. The files stay.
func (n *Network) Close() error {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	var errs []error
	for _, m := range n.Machines() {
		errs = append(errs, m.Kill())
	}
	for _, s := range n.Segments() {
		errs = append(errs, s.close())
	}
	for _, m := range n.Machines() {
		errs = append(errs, m.console.close())
	}
	return errors.Join(errs...)
}
