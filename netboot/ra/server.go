package ra

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

const sendTime = time.Second // until an answer is given up

// Server answers on one interface.
type Server struct {
	name  string
	index int
	mac   [6]byte
	conn  net.PacketConn
	v6    *ipv6.PacketConn
}

// Listen opens the socket on an interface, which needs IPv6 (a link-local address
// of its own) to answer, and CAP_NET_RAW.
func Listen(ctx context.Context, ifname string) (*Server, error) {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("ra: interface %s: %w", ifname, err)
	}
	if len(ifi.HardwareAddr) != 6 {
		return nil, fmt.Errorf("ra: interface %s has no Ethernet address: serve on an Ethernet interface", ifname)
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.BindToDevice(int(fd), ifname) })
		return errors.Join(err, failed)
	}}
	c, err := lc.ListenPacket(ctx, "ip6:ipv6-icmp", "::")
	if err != nil {
		return nil, fmt.Errorf("ra: listen on %s: %w", ifname, err)
	}
	s := &Server{name: ifname, index: ifi.Index, mac: [6]byte(ifi.HardwareAddr), conn: c, v6: ipv6.NewPacketConn(c)}
	if err := s.prepare(ifi); err != nil {
		return nil, errors.Join(fmt.Errorf("ra: socket on %s: %w", ifname, err), c.Close())
	}
	return s, nil
}

func (s *Server) prepare(ifi *net.Interface) error {
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeRouterSolicitation)
	filter.Accept(ipv6.ICMPTypeRouterAdvertisement)
	return errors.Join(
		s.v6.SetICMPFilter(&filter),
		s.v6.JoinGroup(ifi, &net.IPAddr{IP: net.IPv6linklocalallrouters}),
		s.v6.SetMulticastInterface(ifi),
		s.v6.SetMulticastHopLimit(hopLimit),
		s.v6.SetMulticastLoopback(false), // or our own would be taken for those of a router
		s.v6.SetControlMessage(ipv6.FlagHopLimit, true),
	)
}

// Close closes the socket. Serve must have returned.
func (s *Server) Close() error { return s.conn.Close() }

// Serve answers until ctx is done, and returns nil then, or until the socket fails.
// failed, which may be nil, is told of answers that could not be sent; it comes at
// most Rate times a second and must not block.
func (s *Server) Serve(ctx context.Context, failed func(error)) error {
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var r Responder
	buf := make([]byte, maxPacket+1)
	for {
		n, cm, src, err := s.v6.ReadFrom(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENETDOWN): // the link comes back
			continue
		case err != nil:
			return fmt.Errorf("ra: read on %s: %w", s.name, err)
		}
		from, ok := source(src)
		if !ok || cm == nil {
			continue
		}
		p := Packet{From: from, HopLimit: cm.HopLimit, Bytes: buf[:n]}
		if !r.Handle(time.Now(), p) {
			continue
		}
		if err := s.advertise(); err != nil && failed != nil {
			failed(fmt.Errorf("ra: answer %v on %s: %w", from, s.name, err))
		}
	}
}

// advertise sends to all: who asks may have no address that answers yet.
func (s *Server) advertise() error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(sendTime)); err != nil {
		return err
	}
	cm := &ipv6.ControlMessage{HopLimit: hopLimit, IfIndex: s.index}
	_, err := s.v6.WriteTo(Advertisement(s.mac), cm, &net.IPAddr{IP: net.IPv6linklocalallnodes, Zone: s.name})
	return err
}

// source is the address of a sender, without the zone.
func source(a net.Addr) (netip.Addr, bool) {
	ip, ok := a.(*net.IPAddr)
	if !ok {
		return netip.Addr{}, false
	}
	from, ok := netip.AddrFromSlice(ip.IP)
	return from, ok
}
