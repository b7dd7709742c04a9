package lab

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ssi/internal/id"
)

const (
	bridgeName = "lab0"
	nodeIface  = "eth0" // in the node
	mtu        = 1500
)

// network is the lab's network: a bridge, a port per node that is on, and wires
// in front of the ports that faults concern.
type network struct {
	log    *slog.Logger
	seed   uint64
	bridge int // interface index

	mu     sync.Mutex
	faults *faults
	ports  map[id.Node]int // interface index of the lab's end of a node's cable
	wires  map[id.Node]*wire
}

// mac is the hardware address of node n: the sender of a frame tells the node.
func mac(n id.Node) net.HardwareAddr {
	return net.HardwareAddr{0x02, 's', 's', 'i', 0, byte(n)}
}

// nodeOf is the node that has this hardware address, or 0.
func nodeOf(addr []byte) id.Node {
	if len(addr) == 6 && addr[0] == 0x02 && addr[1] == 's' && addr[2] == 's' && addr[3] == 'i' && addr[4] == 0 {
		return id.Node(addr[5])
	}
	return 0
}

func newNetwork(seed uint64, log *slog.Logger) (*network, error) {
	// The lab's own end of the network is no host: no IPv6 chatter of its own.
	for _, who := range []string{"all", "default"} {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/"+who+"/disable_ipv6", []byte("1"), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("lab: %w", err)
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = bridgeName, mtu
	snooping := false
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}); err != nil {
		return nil, missing("bridge", err)
	}
	l, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return nil, fmt.Errorf("lab: bridge: %w", err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return nil, fmt.Errorf("lab: bridge: %w", err)
	}
	return &network{log: log, seed: seed, bridge: l.Attrs().Index, faults: newFaults(), ports: map[id.Node]int{}, wires: map[id.Node]*wire{}}, nil
}

// missing names the kernel feature that an error of netlink means.
func missing(kind string, err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("lab: the kernel has no %s interfaces: load the module (`modprobe %s`)", kind, kind)
	}
	return fmt.Errorf("lab: make a %s interface: %w", kind, err)
}

// byIndex names an interface to netlink.
func byIndex(index int) netlink.Link {
	attrs := netlink.NewLinkAttrs()
	attrs.Index = index
	return &netlink.Device{LinkAttrs: attrs}
}

func portName(n id.Node) string { return Host(n) }

// plug makes the cable of node n, whose network namespace is that of process pid.
func (w *network) plug(n id.Node, pid int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	plan := w.faults.plan(n)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = portName(n), mtu
	if plan == nil {
		attrs.MasterIndex = w.bridge
	}
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerHardwareAddr, veth.PeerNamespace, veth.PeerMTU = nodeIface, mac(n), netlink.NsPid(pid), mtu
	if err := netlink.LinkAdd(veth); err != nil {
		return missing("veth", err)
	}
	l, err := netlink.LinkByName(portName(n))
	if err != nil {
		return fmt.Errorf("lab: cable of node %d: %w", n, err)
	}
	w.ports[n] = l.Attrs().Index
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("lab: cable of node %d: %w", n, err)
	}
	if plan == nil {
		return nil
	}
	return w.insert(n, plan)
}

// silence cuts the cable of node n without a trace for the others.
func (w *network) silence(n id.Node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if port, ok := w.ports[n]; ok {
		if err := netlink.LinkSetDown(byIndex(port)); err != nil {
			w.log.Error("cut the cable", "node", n, "err", err)
		}
	}
}

// unplug removes the cable of node n.
func (w *network) unplug(n id.Node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if wire := w.wires[n]; wire != nil {
		wire.close()
		delete(w.wires, n)
	}
	if port, ok := w.ports[n]; ok {
		// It may have gone with the node's network namespace.
		if err := netlink.LinkDel(byIndex(port)); err != nil && !errors.Is(err, unix.ENODEV) {
			w.log.Error("remove the cable", "node", n, "err", err)
		}
		delete(w.ports, n)
	}
}

// close ends all wires.
func (w *network) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for n, wire := range w.wires {
		wire.close()
		delete(w.wires, n)
	}
}

// disturb changes the faults and moves ports between bridge and wires.
func (w *network) disturb(p faultParams) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.faults.change(p); err != nil {
		return err
	}
	var first error
	for n := range w.ports {
		if err := w.apply(n, w.faults.plan(n)); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (w *network) apply(n id.Node, plan *plan) error {
	wire := w.wires[n]
	switch {
	case plan == nil && wire != nil:
		return w.remove(n)
	case plan != nil && wire == nil:
		return w.insert(n, plan)
	case plan != nil:
		wire.plan.Store(plan)
	}
	return nil
}

// insert takes the port of node n off the bridge and puts a wire between.
func (w *network) insert(n id.Node, plan *plan) error {
	wire, err := newWire(n, w.ports[n], w.bridge, plan, w.seed, w.log)
	if err != nil {
		return err
	}
	// From here to the start of the wire frames wait in its socket.
	if err := netlink.LinkSetNoMaster(byIndex(w.ports[n])); err != nil {
		wire.close()
		return fmt.Errorf("lab: take node %d off the bridge: %w", n, err)
	}
	wire.start()
	w.wires[n] = wire
	return nil
}

// remove puts the port of node n back on the bridge. For a moment both ways are
// open, so that nothing is lost; some frames come twice.
func (w *network) remove(n id.Node) error {
	wire := w.wires[n]
	wire.drain()
	if err := netlink.LinkSetMasterByIndex(byIndex(w.ports[n]), w.bridge); err != nil {
		return fmt.Errorf("lab: put node %d back on the bridge: %w", n, err)
	}
	delete(w.wires, n)
	wire.close()
	return nil
}

// counters tells what the wire of node n did, or nil if it has none.
func (w *network) counters(n id.Node) *Wire {
	w.mu.Lock()
	defer w.mu.Unlock()
	wire := w.wires[n]
	if wire == nil {
		return nil
	}
	return &Wire{Passed: wire.passed.Load(), Dropped: wire.dropped.Load()}
}

// list is the table of faults.
func (w *network) list() []Fault {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.faults.list()
}

// configureNode gives this network namespace, a node's, its address.
func configureNode(n id.Node) error {
	eth, err := netlink.LinkByName(nodeIface)
	if err != nil {
		return fmt.Errorf("lab: %s: %w", nodeIface, err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(Addr(n)).To4(), Mask: net.CIDRMask(24, 32)}}
	if err := netlink.AddrAdd(eth, addr); err != nil {
		return fmt.Errorf("lab: set the address: %w", err)
	}
	if err := netlink.LinkSetUp(eth); err != nil {
		return fmt.Errorf("lab: %s: %w", nodeIface, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Index = 1 // lo is the first interface of every network namespace
	if err := netlink.LinkSetUp(&netlink.Device{LinkAttrs: attrs}); err != nil {
		return fmt.Errorf("lab: lo: %w", err)
	}
	return nil
}
