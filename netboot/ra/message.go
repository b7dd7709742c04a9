package ra

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"
)

// The ICMPv6 types, RFC 4861 section 4.
const (
	typeSolicitation  = 133
	typeAdvertisement = 134

	optSourceLink  = 1
	optPrefix      = 3
	headSolicit    = 8
	headAdvertise  = 16
	maxPacket      = 1500
	hopLimit       = 255
	linkOptionSize = 8 // of an Ethernet address
)

// Packet is an ICMPv6 packet as it came in, with what of its IPv6 header counts.
type Packet struct {
	From     netip.Addr // the source
	HopLimit int
	Bytes    []byte // from the type on; the kernel has checked the checksum
}

// check says what is wrong with a packet of a type: RFC 4861 section 6.1. Only a
// packet with hop limit 255 comes from this link.
func (p Packet) check(kind byte, head int) error {
	switch b := p.Bytes; {
	case len(b) > maxPacket:
		return errors.New("packet is too long")
	case len(b) < head || b[0] != kind || b[1] != 0:
		return errors.New("not a message of the type")
	case p.HopLimit != hopLimit:
		return errors.New("it comes from another link")
	}
	return nil
}

// options calls f for each option, with its whole bytes.
func options(b []byte, f func(kind byte, option []byte) error) error {
	for len(b) > 0 {
		if len(b) < 2 || b[1] == 0 || int(b[1])*8 > len(b) {
			return errors.New("option does not fit the packet")
		}
		size := int(b[1]) * 8
		if err := f(b[0], b[:size]); err != nil {
			return err
		}
		b = b[size:]
	}
	return nil
}

// ParseSolicitation checks that a packet is a router solicitation.
func ParseSolicitation(p Packet) error {
	if err := p.check(typeSolicitation, headSolicit); err != nil {
		return err
	}
	return options(p.Bytes[headSolicit:], func(kind byte, _ []byte) error {
		if kind == optSourceLink && p.From.IsUnspecified() {
			return errors.New("it has a link address but no source address")
		}
		return nil
	})
}

// Advertised is what of an advertisement concerns us.
type Advertised struct {
	Lifetime time.Duration // of the router; 0: it is none
	Offers   bool          // it offers a route, a prefix or DHCPv6
}

// ParseAdvertisement reads a router advertisement.
func ParseAdvertisement(p Packet) (Advertised, error) {
	if err := p.check(typeAdvertisement, headAdvertise); err != nil {
		return Advertised{}, err
	}
	if !p.From.IsLinkLocalUnicast() {
		return Advertised{}, errors.New("not from the address of a router on this link")
	}
	const managedOrOther = 0xc0
	a := Advertised{Lifetime: time.Duration(binary.BigEndian.Uint16(p.Bytes[6:])) * time.Second}
	a.Offers = a.Lifetime > 0 || p.Bytes[5]&managedOrOther != 0
	err := options(p.Bytes[headAdvertise:], func(kind byte, _ []byte) error {
		a.Offers = a.Offers || kind == optPrefix
		return nil
	})
	return a, err
}

// Advertisement is the empty advertisement of an interface: lifetime 0, no flag,
// and every value "unspecified" (0), so that no host changes a setting. The
// checksum is left to the kernel.
func Advertisement(mac [6]byte) []byte {
	b := make([]byte, headAdvertise, headAdvertise+linkOptionSize)
	b[0] = typeAdvertisement
	b = append(b, optSourceLink, linkOptionSize/8)
	return append(b, mac[:]...)
}
