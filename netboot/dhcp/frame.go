package dhcp

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	ethernetHead = 14
	ipHead       = 20
	udpHead      = 8
	protoUDP     = 17
)

// appendFrame appends an Ethernet frame with a UDP packet to b. It is for machines
// that have an address but do not answer ARP for it yet (RFC 2131 section 4.1).
func appendFrame(b []byte, dst, src MAC, to, from netip.AddrPort, payload []byte) []byte {
	b = append(b, dst[:]...)
	b = append(b, src[:]...)
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IP)

	start := len(b)
	b = append(b, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(ipHead+udpHead+len(payload)))
	b = append(b, 0, 0, 0, 0, 64, protoUDP, 0, 0) // no fragments, TTL 64
	b = append(b, from.Addr().AsSlice()...)
	b = append(b, to.Addr().AsSlice()...)
	binary.BigEndian.PutUint16(b[start+10:], ^sum(0, b[start:start+ipHead]))

	udp := len(b)
	b = binary.BigEndian.AppendUint16(b, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(udpHead+len(payload)))
	b = append(b, 0, 0)
	b = append(b, payload...)
	// The pseudo header of RFC 768: both addresses, the protocol, the length.
	pseudo := sum(uint32(protoUDP+udpHead+len(payload)), b[start+12:start+ipHead])
	check := ^sum(uint32(pseudo), b[udp:])
	if check == 0 {
		check = 0xffff // 0 would mean that there is none
	}
	binary.BigEndian.PutUint16(b[udp+6:], check)
	return b
}

// sum is the sum of RFC 1071 over b, beginning with a partial one.
func sum(s uint32, b []byte) uint16 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// frame is what an Ethernet frame with a UDP packet holds.
type frame struct {
	src     MAC
	from    netip.AddrPort
	to      netip.AddrPort
	payload []byte // within the frame
}

// parseFrame reads a frame. Checksums are not looked at: those of a virtual
// interface may not be filled in.
func parseFrame(b []byte) (f frame, err error) {
	if len(b) < ethernetHead+ipHead+udpHead || binary.BigEndian.Uint16(b[12:]) != unix.ETH_P_IP {
		return f, errors.New("not an IPv4 frame")
	}
	f.src = MAC(b[6:12])
	ip := b[ethernetHead:]
	head, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	switch {
	case ip[0]>>4 != 4 || head < ipHead || total > len(ip) || total < head+udpHead:
		return f, errors.New("IPv4 header does not fit the frame")
	case ip[9] != protoUDP || binary.BigEndian.Uint16(ip[6:])&0x3fff != 0:
		return f, errors.New("not a whole UDP packet")
	}
	udp := ip[head:total]
	size := int(binary.BigEndian.Uint16(udp[4:]))
	if size < udpHead || size > len(udp) {
		return f, errors.New("UDP header does not fit the packet")
	}
	f.from = netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[12:16])), binary.BigEndian.Uint16(udp))
	f.to = netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[16:20])), binary.BigEndian.Uint16(udp[2:]))
	f.payload = udp[udpHead:size]
	return f, nil
}

// toClients is a filter that lets pass what others send to the port of DHCP
// clients, so that the server is not woken by other traffic.
func toClients() ([]bpf.RawInstruction, error) {
	return bpf.Assemble([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PACKET_OUTGOING, SkipTrue: 9},
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IP, SkipTrue: 7},
		bpf.LoadAbsolute{Off: ethernetHead + 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protoUDP, SkipTrue: 5},
		bpf.LoadAbsolute{Off: ethernetHead + 6, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x3fff, SkipTrue: 3},
		bpf.LoadMemShift{Off: ethernetHead},
		bpf.LoadIndirect{Off: ethernetHead + 2, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: portClient, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: ethernetHead + maxPacket},
	})
}
