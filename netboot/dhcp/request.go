package dhcp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	portServer = 67
	portClient = 68
	portPXE    = 4011 // PXE specification 2.1, section 2.2.5

	ethernet  = 1 // hardware type, RFC 1700
	maxPacket = 1500
)

// Request is a packet that a machine sent to a server.
type Request struct {
	Message *dhcpv4.DHCPv4
	Port    uint16         // where it came in: 67 or 4011
	From    netip.AddrPort // of the sender

	kind   dhcpv4.MessageType
	mac    MAC
	client netip.Addr // ciaddr; the zero Addr if it is 0.0.0.0, as the following
	relay  netip.Addr // giaddr
	wanted netip.Addr // option 50
	server netip.Addr // option 54
	query  Query
}

// ParseRequest reads a packet. What is not a DHCP request of an Ethernet machine is
// an error.
func ParseRequest(b []byte, port uint16, from netip.AddrPort) (*Request, error) {
	if len(b) > maxPacket {
		return nil, fmt.Errorf("packet of %d bytes is longer than %d", len(b), maxPacket)
	}
	m, err := dhcpv4.FromBytes(b)
	if err != nil {
		return nil, err
	}
	r := &Request{Message: m, Port: port, From: netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), kind: m.MessageType()}
	var ok bool
	switch r.mac, ok = macOf(m.ClientHWAddr); {
	case m.OpCode != dhcpv4.OpcodeBootRequest:
		return nil, errors.New("not a request")
	case m.HWType != ethernet || !ok:
		return nil, errors.New("not from an Ethernet address of one machine")
	case r.kind == dhcpv4.MessageTypeNone:
		return nil, errors.New("no message type: BOOTP is not served")
	}
	// What is sent back must fit.
	for _, code := range []dhcpv4.GenericOptionCode{optClientID, optRelayAgent, optUUID} {
		if n := len(m.Options.Get(code)); n > 255 {
			return nil, fmt.Errorf("option %d has %d bytes, more than 255", code.Code(), n)
		}
	}
	r.client, r.relay = addrOf(m.ClientIPAddr), addrOf(m.GatewayIPAddr)
	r.wanted, r.server = optAddr(m, 50), optAddr(m, 54)
	r.query = Query{MAC: r.mac, Firmware: firmwareOf(m), Arch: archOf(m), UUID: uuidOf(m)}
	return r, nil
}

// addrOf is an IPv4 address that is not 0.0.0.0, or the zero Addr.
func addrOf(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip)
	if a = a.Unmap(); !ok || !a.Is4() || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// optAddr is the address in an option.
func optAddr(m *dhcpv4.DHCPv4, code uint8) netip.Addr {
	b := m.Options.Get(dhcpv4.GenericOptionCode(code))
	if len(b) != net.IPv4len {
		return netip.Addr{}
	}
	return addrOf(b)
}
