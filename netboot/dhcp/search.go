package dhcp

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// search looks for other servers from time to time: it asks as a client would.
// Other servers keep an address for this interface for a moment; none is taken.
func (s *Server) search(ctx context.Context) error {
	t := time.NewTicker(s.cfg.Search)
	defer t.Stop()
	for {
		if err := s.ask(); err != nil {
			s.report(Event{Kind: SearchFailed, Err: err})
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}

func (s *Server) ask() error {
	var xid dhcpv4.TransactionID
	_, _ = rand.Read(xid[:]) // never fails, crypto/rand
	all := MAC{255, 255, 255, 255, 255, 255}
	from := netip.AddrPortFrom(netip.IPv4Unspecified(), portClient)
	to := netip.AddrPortFrom(broadcast().Addr(), portServer)
	if err := s.wire.sendFrame(all, to, from, searchMessage(s.wire.mac, xid).ToBytes(), time.Now().Add(sendTime)); err != nil {
		return fmt.Errorf("send on %s: %w", s.cfg.Interface, err)
	}
	return nil
}

// searchMessage is a DISCOVER to which every server answers by broadcast.
func searchMessage(mac MAC, xid dhcpv4.TransactionID) *dhcpv4.DHCPv4 {
	m := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: ethernet, TransactionID: xid, ClientHWAddr: mac[:],
		Options: dhcpv4.Options{53: {byte(dhcpv4.MessageTypeDiscover)}, 55: {1, 3, 54}},
	}
	m.SetBroadcast()
	return m
}

// watch sees what others send to clients on this wire: the answers to our search,
// and whatever else a server broadcasts.
func (s *Server) watch(ctx context.Context) error {
	buf := make([]byte, ethernetHead+maxPacket)
	for {
		n, _, err := s.wire.raw.ReadFrom(buf)
		if err != nil {
			if err := readError(ctx, s.cfg.Interface, err); err != nil {
				return err
			}
			continue
		}
		if addr, mac, ok := otherServer(buf[:n], s.cfg.Server); ok && mac != s.wire.mac {
			s.report(Event{Kind: OtherServer, Addr: addr, MAC: mac})
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// otherServer tells from a frame that another server gives addresses. A proxy gives
// none and is no harm.
func otherServer(b []byte, self netip.Addr) (netip.Addr, MAC, bool) {
	f, err := parseFrame(b)
	if err != nil {
		return netip.Addr{}, MAC{}, false
	}
	m, err := dhcpv4.FromBytes(f.payload)
	if err != nil || m.OpCode != dhcpv4.OpcodeBootReply || !addrOf(m.YourIPAddr).IsValid() {
		return netip.Addr{}, MAC{}, false
	}
	switch m.MessageType() {
	case dhcpv4.MessageTypeOffer, dhcpv4.MessageTypeAck:
	default:
		return netip.Addr{}, MAC{}, false
	}
	server := optAddr(m, 54)
	return server, f.src, server.IsValid() && server != self
}
