package netconf

import (
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// maxServers is how many DHCP servers of a link are told of.
const maxServers = 8

// offers is a connection for DHCP that remembers which servers offer addresses to
// this machine, also those whose offer comes too late to be looked at.
type offers struct {
	net.PacketConn
	mac net.HardwareAddr

	mu      sync.Mutex
	servers []netip.Addr // at most maxServers
}

// ReadFrom is that of net.PacketConn.
func (o *offers) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := o.PacketConn.ReadFrom(b)
	if err == nil {
		o.note(b[:n])
	}
	return n, from, err
}

func (o *offers) note(b []byte) {
	m, err := dhcpv4.FromBytes(b)
	if err != nil || m.OpCode != dhcpv4.OpcodeBootReply || m.MessageType() != dhcpv4.MessageTypeOffer || !slices.Equal(m.ClientHWAddr, o.mac) {
		return
	}
	_, host := ipv4(m.YourIPAddr) // a proxyDHCP server offers no address
	server, ok := ipv4(m.ServerIdentifier())
	if !host || !ok {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !slices.Contains(o.servers, server) && len(o.servers) < maxServers {
		o.servers = append(o.servers, server)
	}
}

// beside are the servers that made an offer, but one.
func (o *offers) beside(chosen netip.Addr) []netip.Addr {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(o.servers), func(a netip.Addr) bool { return a == chosen })
}
