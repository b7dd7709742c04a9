package dhcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

const (
	receiveBuffer = 1 << 20         // bytes that wait in the kernel, of each socket
	sendTime      = 2 * time.Second // until an answer is given up
)

// Sockets are what a server listens on. They may come from an earlier process:
// requests that arrived meanwhile are in them.
type Sockets struct {
	DHCP *net.UDPConn // port 67
	PXE  *net.UDPConn // port 4011
}

// Listen opens the sockets on an interface, in the network namespace of the
// calling thread. It needs CAP_NET_RAW (SO_BINDTODEVICE, socket(7)) and
// CAP_NET_BIND_SERVICE.
func Listen(ctx context.Context, ifname string) (Sockets, error) {
	var s Sockets
	var err error
	if s.DHCP, err = listen(ctx, ifname, portServer); err != nil {
		return Sockets{}, err
	}
	if s.PXE, err = listen(ctx, ifname, portPXE); err != nil {
		return Sockets{}, errors.Join(err, s.DHCP.Close())
	}
	return s, nil
}

func listen(ctx context.Context, ifname string, port int) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.BindToDevice(int(fd), ifname) })
		return errors.Join(err, failed)
	}}
	c, err := lc.ListenPacket(ctx, "udp4", ":"+strconv.Itoa(port))
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("dhcp: listen on %s: %w: another DHCP server runs on this machine; stop it, or let it serve another interface", ifname, err)
	}
	if err != nil {
		return nil, fmt.Errorf("dhcp: listen on %s: %w", ifname, err)
	}
	u := c.(*net.UDPConn)
	if err := u.SetReadBuffer(receiveBuffer); err != nil {
		return nil, errors.Join(fmt.Errorf("dhcp: buffer of port %d: %w", port, err), u.Close())
	}
	return u, nil
}

// Close closes the sockets.
func (s Sockets) Close() error { return errors.Join(s.DHCP.Close(), s.PXE.Close()) }

// wire sends replies.
type wire struct {
	sockets Sockets
	raw     *packet.Conn // sends frames; receives what others send to clients
	mac     MAC          // of the interface
	from    netip.Addr
	source  []byte // control message: interface and source address
}

func openWire(cfg Config, sockets Sockets) (*wire, error) {
	ifi, err := net.InterfaceByName(cfg.Interface)
	if err != nil {
		return nil, fmt.Errorf("dhcp: interface %s: %w", cfg.Interface, err)
	}
	mac, ok := macOf(ifi.HardwareAddr)
	if !ok {
		return nil, fmt.Errorf("dhcp: interface %s has no Ethernet address: serve on an Ethernet interface", cfg.Interface)
	}
	if err := hasAddress(ifi, cfg.Server); err != nil {
		return nil, err
	}
	filter, err := toClients()
	if err != nil {
		return nil, fmt.Errorf("dhcp: filter: %w", err)
	}
	raw, err := packet.Listen(ifi, packet.Raw, unix.ETH_P_IP, &packet.Config{Filter: filter})
	if err != nil {
		return nil, fmt.Errorf("dhcp: packet socket on %s: %w", cfg.Interface, err)
	}
	return &wire{
		sockets: sockets, raw: raw, mac: mac, from: cfg.Server,
		source: unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: int32(ifi.Index), Spec_dst: cfg.Server.As4()}),
	}, nil
}

// hasAddress checks that the interface has an address: the kernel sends with no
// other.
func hasAddress(ifi *net.Interface, want netip.Addr) error {
	addrs, err := ifi.Addrs()
	if err != nil {
		return fmt.Errorf("dhcp: addresses of %s: %w", ifi.Name, err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == want {
			return nil
		}
	}
	return fmt.Errorf("dhcp: interface %s does not have the server address %v: configure it first", ifi.Name, want)
}

// send sends a reply.
func (w *wire) send(r *Reply) error {
	b := r.Message.ToBytes()
	deadline := time.Now().Add(sendTime)
	if r.Link != (MAC{}) {
		return w.sendFrame(r.Link, r.To, netip.AddrPortFrom(w.from, portServer), b, deadline)
	}
	c := w.sockets.DHCP
	if r.fromPXE {
		c = w.sockets.PXE
	}
	if err := c.SetWriteDeadline(deadline); err != nil {
		return err
	}
	_, _, err := c.WriteMsgUDPAddrPort(b, w.source, r.To)
	return err
}

func (w *wire) sendFrame(dst MAC, to, from netip.AddrPort, payload []byte, deadline time.Time) error {
	b := appendFrame(make([]byte, 0, ethernetHead+ipHead+udpHead+len(payload)), dst, w.mac, to, from, payload)
	if err := w.raw.SetWriteDeadline(deadline); err != nil {
		return err
	}
	_, err := w.raw.WriteTo(b, &packet.Addr{HardwareAddr: dst[:]})
	return err
}
