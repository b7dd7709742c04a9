package machine

import (
	"fmt"
	"net"
)

// MAC is the hardware address of an Ethernet interface (EUI-48, IEEE 802).
type MAC [6]byte

// ParseMAC reads an address, in any of the forms of net.ParseMAC. It refuses
// those that no interface has: zero, broadcast and other group addresses.
func ParseMAC(s string) (MAC, error) {
	if len(s) > 32 {
		return MAC{}, fmt.Errorf("%.32q… is no MAC address: write 52:54:00:77:00:02", s)
	}
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != len(MAC{}) {
		return MAC{}, fmt.Errorf("%q is no MAC address: write 52:54:00:77:00:02", s)
	}
	m := MAC(hw)
	switch {
	case m == MAC{}:
		return MAC{}, fmt.Errorf("%s is the empty MAC address", m)
	case m[0]&1 != 0: // the group bit
		return MAC{}, fmt.Errorf("%s is a group address, not that of an interface", m)
	}
	return m, nil
}

// String is the address in lower case with colons.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// MarshalText makes a MAC a JSON string or map key.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (m *MAC) UnmarshalText(text []byte) error {
	v, err := ParseMAC(string(text))
	if err != nil {
		return err
	}
	*m = v
	return nil
}
