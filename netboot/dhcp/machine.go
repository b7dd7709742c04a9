package dhcp

import (
	"net"
	"net/netip"
)

// MAC is an Ethernet address: the identity of a machine.
type MAC [6]byte

// String is the address as 52:54:00:77:00:02.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// ParseMAC reads an Ethernet address of one machine: six bytes, not a group, not
// all zero.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil {
		return MAC{}, err
	}
	if m, ok := macOf(hw); ok {
		return m, nil
	}
	return MAC{}, &net.AddrError{Err: "not the Ethernet address of one machine", Addr: s}
}

func macOf(hw net.HardwareAddr) (MAC, bool) {
	if len(hw) != len(MAC{}) {
		return MAC{}, false
	}
	m := MAC(hw)
	return m, m != MAC{} && m[0]&1 == 0
}

// State says what the cluster thinks of a machine.
type State int

// The states.
const (
	Unknown State = iota // never seen, or refused
	Pending              // asked before; waits for approval
	Boot                 // may boot
)

// Query is what a request says of its sender. Anyone can send anything: it
// selects, it proves nothing.
type Query struct {
	MAC      MAC
	Firmware Firmware
	Arch     uint16   // option 93, RFC 4578; 0 also if there is none
	UUID     [16]byte // option 97, RFC 4578; zero if there is none
}

// Machine is the answer to a Query.
type Machine struct {
	State    State
	Addr     netip.Addr // its fixed address; the zero Addr takes one of the pool
	Hostname string     // without domain; at most 63 bytes; "" gives none
	// Bootfile is the file name (TFTP) or URL for this firmware, at most 255 bytes.
	// "" is that of Config.Loaders for a machine in state Boot, and nothing for
	// others: what is given here to those must only tell that they wait.
	Bootfile string
}

// Machines knows the machines. Both methods are called for each request, under
// a lock: they answer from memory, at once, and bound what they remember.
type Machines interface {
	Lookup(Query) Machine
	// Owner returns whose fixed address it is.
	Owner(netip.Addr) (MAC, bool)
}
