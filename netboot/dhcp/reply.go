package dhcp

import (
	"encoding/binary"
	"math"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Reply is a packet for a machine or its relay.
type Reply struct {
	Message *dhcpv4.DHCPv4
	To      netip.AddrPort
	// Link says that the machine cannot answer ARP for its address yet: the frame
	// goes to this Ethernet address. The zero MAC leaves it to the kernel.
	Link MAC

	fromPXE bool // sent from port 4011
}

// newReply returns a reply with what all have: RFC 2131 table 3, and the
// identifiers that are sent back (RFC 6842, RFC 3046, RFC 4578).
func (c *Core) newReply(r *Request, kind dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	m := &dhcpv4.DHCPv4{
		OpCode:        dhcpv4.OpcodeBootReply,
		HWType:        r.Message.HWType,
		TransactionID: r.Message.TransactionID,
		Flags:         r.Message.Flags,
		GatewayIPAddr: r.Message.GatewayIPAddr,
		ClientHWAddr:  r.Message.ClientHWAddr,
		Options:       make(dhcpv4.Options, 24),
	}
	m.Options[53] = []byte{byte(kind)}
	m.Options[54] = c.cfg.Server.AsSlice()
	for _, code := range []dhcpv4.GenericOptionCode{optClientID, optRelayAgent} {
		if v, ok := r.Message.Options[code.Code()]; ok {
			m.Options[code.Code()] = v
		}
	}
	return m
}

// configure puts the subnet's and the machine's configuration into a reply.
func (c *Core) configure(m *dhcpv4.DHCPv4, r *Request, s *Subnet, machine Machine) {
	m.ServerIPAddr = c.cfg.Server.AsSlice()
	m.Options[1] = net.CIDRMask(s.Prefix.Bits(), 32)
	m.Options[28] = s.broadcast().AsSlice()
	if s.Router.IsValid() {
		m.Options[3] = s.Router.AsSlice()
	}
	setAddrs(m, 6, s.DNS)
	setAddrs(m, 42, s.NTP)
	if s.Domain != "" {
		m.Options[15] = []byte(s.Domain)
	}
	if name := machine.Hostname; name != "" && len(name) <= maxLabel {
		m.Options[12] = []byte(name)
	}
	c.setBoot(m, r, machine, false)
}

func setAddrs(m *dhcpv4.DHCPv4, code uint8, list []netip.Addr) {
	var b []byte
	for _, a := range list {
		b = append(b, a.AsSlice()...)
	}
	if b != nil {
		m.Options[code] = b
	}
}

// setBoot puts what the machine boots into a reply.
func (c *Core) setBoot(m *dhcpv4.DHCPv4, r *Request, machine Machine, proxied bool) {
	if uuid, ok := r.Message.Options[optUUID.Code()]; ok {
		m.Options[optUUID.Code()] = uuid
	}
	setBoot(m, r.query.Firmware, c.bootfile(r, machine), proxied)
	fit(m, r.Message)
}

// setTimes puts the lease time into a reply, with the times of renewal and
// rebinding that RFC 2131 section 4.4.5 proposes.
func setTimes(m *dhcpv4.DHCPv4, d time.Duration) {
	m.Options[51] = seconds(d)
	m.Options[58] = seconds(d / 2)
	m.Options[59] = seconds(d * 7 / 8)
}

func seconds(d time.Duration) []byte {
	return binary.BigEndian.AppendUint32(nil, uint32(min(int64(d/time.Second), math.MaxUint32)))
}

const (
	ipUDP      = 20 + 8
	minMessage = 576 // every machine takes a packet of this size, RFC 2131 section 2
	fixedPart  = 240 // header and magic cookie
)

// fit leaves out what a machine can do without until the reply is no longer than
// the machine takes (option 57), or nothing of that is left.
func fit(m *dhcpv4.DHCPv4, request *dhcpv4.DHCPv4) {
	limit := minMessage
	if b := request.Options.Get(dhcpv4.GenericOptionCode(57)); len(b) == 2 {
		limit = max(limit, min(maxPacket, int(binary.BigEndian.Uint16(b))))
	}
	limit -= ipUDP
	for _, code := range []uint8{42, 15, 66, 28, 58, 59, 12, 6} {
		if optionsSize(m.Options)+fixedPart <= limit {
			return
		}
		delete(m.Options, code)
	}
}

func optionsSize(o dhcpv4.Options) int {
	n := 1 // end
	for _, v := range o {
		n += len(v) + 2*max(1, (len(v)+254)/255)
	}
	return n
}

// address returns a reply with where it goes: RFC 2131 section 4.1.
func (r *Request) address(m *dhcpv4.DHCPv4) *Reply {
	yours := addrOf(m.YourIPAddr)
	switch {
	case r.relay.IsValid():
		return &Reply{Message: m, To: netip.AddrPortFrom(r.relay, portServer)}
	case m.MessageType() == dhcpv4.MessageTypeNak:
		return &Reply{Message: m, To: broadcast()}
	case r.client.IsValid():
		return &Reply{Message: m, To: netip.AddrPortFrom(r.client, portClient)}
	case r.Message.IsBroadcast() || !yours.IsValid():
		return &Reply{Message: m, To: broadcast()}
	}
	return &Reply{Message: m, To: netip.AddrPortFrom(yours, portClient), Link: r.mac}
}

func broadcast() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), portClient)
}
