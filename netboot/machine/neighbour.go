package machine

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Neighbours tells who has an address on our own segments.
type Neighbours interface {
	// Neighbour is the MAC that the kernel found for an address; known is false if
	// the address is not on a segment of ours.
	Neighbour(netip.Addr) (mac MAC, known bool, err error)
}

// KernelNeighbours is the kernel's neighbour table: arp(7), rtnetlink(7). Whoever
// talks TCP to us over a segment of ours is in it.
type KernelNeighbours struct{}

// Neighbour is that of Neighbours.
func (KernelNeighbours) Neighbour(addr netip.Addr) (MAC, bool, error) {
	family := netlink.FAMILY_V4
	if addr.Is6() && !addr.Is4In6() {
		family = netlink.FAMILY_V6
	}
	list, err := netlink.NeighList(0, family)
	if err != nil {
		return MAC{}, false, fmt.Errorf("read the neighbour table: %w", err)
	}
	const usable = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE | netlink.NUD_PERMANENT
	for _, n := range list {
		ip, ok := netip.AddrFromSlice(n.IP)
		if ok && ip.Unmap() == addr.Unmap() && n.State&usable != 0 && len(n.HardwareAddr) == len(MAC{}) {
			return MAC(n.HardwareAddr), true, nil
		}
	}
	return MAC{}, false, nil
}
