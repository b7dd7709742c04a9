package netconf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	// A request is repeated after 1/4, 1/2, 1, 2 and 4 s: a first one is often
	// lost while the link comes up.
	requestTimeout = time.Second / 4
	requestTries   = 5
	// Renewing is repeated by Lease.next as well.
	renewTries = 3

	minPause = 2 * time.Second
	maxPause = 30 * time.Second
)

// errNak is the answer of a server that refuses an address.
var errNak = errors.New("the DHCP server says that the address is not ours any more")

// client gets and keeps the lease of one link.
type client struct {
	link string
	mac  net.HardwareAddr
	host string // told to the server; may be empty
	want net.IP // the address to ask for; nil is any

	nudge  chan struct{}                  // the link has a carrier again: try now; holds one
	leased func(Lease)                    // a lease, a renewed one, or that it is lost: not Valid
	failed func(error)                    // why there is none, or it was lost
	second func(other, chosen netip.Addr) // another server answers, too
}

// run asks until the context ends, which keeps the lease.
func (c *client) run(ctx context.Context) {
	awaitRandom(ctx, c.failed)
	pause := minPause
	for ctx.Err() == nil {
		lease, err := c.acquire(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.failed(err)
			c.sleep(ctx, pause)
			pause = min(2*pause, maxPause)
			continue
		}
		pause = minPause
		c.want = lease.Addr.Addr().AsSlice()
		c.leased(lease)
		if err := c.keep(ctx, lease); err != nil && ctx.Err() == nil {
			c.leased(Lease{})
			c.failed(err)
		}
	}
}

// sleep waits, but not when the link comes back; done tells that ctx has ended.
func (c *client) sleep(ctx context.Context, d time.Duration) (done bool) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-c.nudge:
	case <-timer.C:
	}
	return ctx.Err() != nil
}

// keep renews a lease until it is lost; the error says why.
func (c *client) keep(ctx context.Context, lease Lease) error {
	for ctx.Err() == nil {
		if lease.Length == 0 { // forever: only a new cable can make another network
			select {
			case <-ctx.Done():
				return nil
			case <-c.nudge:
			}
			continue
		}
		todo, at := lease.next(time.Since(lease.Start))
		if c.sleep(ctx, time.Until(lease.Start.Add(at))) {
			return nil
		}
		if todo == expire && time.Since(lease.Start) >= lease.Length {
			return fmt.Errorf("the lease of %s from %s ended and no server renewed it", lease.Addr, lease.Server)
		}
		renewed, err := c.renew(ctx, lease, todo)
		switch {
		case err == nil:
			lease = renewed
			c.want = lease.Addr.Addr().AsSlice()
			c.leased(lease)
		case errors.Is(err, errNak):
			return err
		}
	}
	return nil
}

// acquire gets an address: discover, offer, request, ack.
func (c *client) acquire(ctx context.Context) (Lease, error) {
	dhcp, seen, err := c.broadcast(requestTries)
	if err != nil {
		return Lease{}, err
	}
	defer dhcp.Close()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	discover, err := dhcpv4.NewDiscovery(c.mac, c.options()...)
	if err != nil {
		return Lease{}, fmt.Errorf("DHCP: %w", err)
	}
	if c.want != nil {
		discover.UpdateOption(dhcpv4.OptRequestedIPAddress(c.want))
	}
	// A proxyDHCP server offers no address, and means machines that boot.
	offers := func(m *dhcpv4.DHCPv4) bool {
		_, host := ipv4(m.YourIPAddr)
		return m.MessageType() == dhcpv4.MessageTypeOffer && host
	}
	start := time.Now()
	offer, err := dhcp.SendAndRead(ctx, nclient4.DefaultServers, discover, offers)
	if err != nil {
		return Lease{}, c.why(err, start)
	}
	start = time.Now()
	got, err := dhcp.RequestFromOffer(ctx, offer, c.options()...)
	if err != nil {
		return Lease{}, c.why(err, start)
	}
	lease, err := fromServer(got.ACK, start)
	if err == nil {
		for _, other := range seen.beside(lease.Server) {
			c.second(other, lease.Server)
		}
	}
	return lease, err
}

func fromServer(ack *dhcpv4.DHCPv4, start time.Time) (Lease, error) {
	lease, err := parseLease(ack, start)
	if err != nil {
		return Lease{}, fmt.Errorf("the answer of the DHCP server %v is refused: %w", ack.ServerIdentifier(), err)
	}
	return lease, nil
}

// renew asks for more time: its own server, or every one.
func (c *client) renew(ctx context.Context, lease Lease, todo step) (Lease, error) {
	dhcp, dest, err := c.forRenewal(lease, todo)
	if err != nil {
		return Lease{}, err
	}
	defer dhcp.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := dhcpv4.NewRenewFromAck(lease.ack, c.options()...)
	if err != nil {
		return Lease{}, fmt.Errorf("DHCP: %w", err)
	}
	start := time.Now()
	answer, err := dhcp.SendAndRead(ctx, dest, request, nclient4.IsMessageType(dhcpv4.MessageTypeAck, dhcpv4.MessageTypeNak))
	if err != nil {
		return Lease{}, c.why(err, start)
	}
	if answer.MessageType() == dhcpv4.MessageTypeNak {
		return Lease{}, errNak
	}
	return fromServer(answer, start)
}

func (c *client) forRenewal(lease Lease, todo step) (*nclient4.Client, *net.UDPAddr, error) {
	if todo != renew {
		dhcp, _, err := c.broadcast(renewTries)
		return dhcp, nclient4.DefaultServers, err
	}
	conn, err := c.unicast(lease)
	if err != nil {
		return nil, nil, err
	}
	dhcp, err := nclient4.NewWithConn(conn, c.mac, nclient4.WithTimeout(requestTimeout), nclient4.WithRetry(renewTries))
	if err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("%s: DHCP: %w", c.link, err)
	}
	return dhcp, &net.UDPAddr{IP: lease.Server.AsSlice(), Port: nclient4.ServerPort}, nil
}

// unicast opens a socket on the leased address.
func (c *client) unicast(lease Lease) (net.PacketConn, error) {
	control := func(_, _ string, raw syscall.RawConn) error {
		var sockErr error
		err := raw.Control(func(fd uintptr) {
			if sockErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); sockErr == nil {
				sockErr = unix.BindToDevice(int(fd), c.link)
			}
		})
		return errors.Join(err, sockErr)
	}
	conn, err := (&net.ListenConfig{Control: control}).ListenPacket(context.Background(), "udp4", (&net.UDPAddr{IP: lease.Addr.Addr().AsSlice(), Port: nclient4.ClientPort}).String())
	if err != nil {
		return nil, fmt.Errorf("%s: DHCP: %w", c.link, err)
	}
	return conn, nil
}

// release gives the lease back (RFC 2131, 4.4.6: there is no answer).
func (c *client) release(lease Lease) error {
	conn, err := c.unicast(lease)
	if err != nil {
		return err
	}
	defer conn.Close()
	message, err := dhcpv4.NewReleaseFromACK(lease.ack)
	if err != nil {
		return fmt.Errorf("%s: DHCP release: %w", c.link, err)
	}
	if err := conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return fmt.Errorf("%s: DHCP release: %w", c.link, err)
	}
	if _, err := conn.WriteTo(message.ToBytes(), &net.UDPAddr{IP: lease.Server.AsSlice(), Port: nclient4.ServerPort}); err != nil {
		return fmt.Errorf("%s: DHCP release to %s: %w", c.link, lease.Server, err)
	}
	return nil
}

func (c *client) options() []dhcpv4.Modifier {
	options := []dhcpv4.Modifier{
		dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(nclient4.MaxMessageSize)),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionRouter, dhcpv4.OptionSubnetMask, dhcpv4.OptionDomainName, dhcpv4.OptionDomainNameServer),
	}
	if c.host != "" {
		options = append(options, dhcpv4.WithOption(dhcpv4.OptHostName(c.host)))
	}
	return options
}

// broadcast opens a client that works without an address. Its socket sees
// nothing but answers: the link may be a busy interconnect.
func (c *client) broadcast(tries int) (*nclient4.Client, *offers, error) {
	ifc, err := net.InterfaceByName(c.link)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: DHCP: %w", c.link, err)
	}
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 9, Size: 1}, // protocol; the packet begins with the IPv4 header
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 6},
		bpf.LoadAbsolute{Off: 6, Size: 2}, // fragment offset
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipTrue: 4},
		bpf.LoadMemShift{Off: 0},
		bpf.LoadIndirect{Off: 2, Size: 2}, // destination port
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: nclient4.ClientPort, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("%s: DHCP: %w", c.link, err)
	}
	raw, err := packet.Listen(ifc, packet.Datagram, unix.ETH_P_IP, &packet.Config{Filter: filter})
	if err != nil {
		return nil, nil, fmt.Errorf("%s: DHCP: %w", c.link, err)
	}
	conn := &offers{PacketConn: nclient4.NewBroadcastUDPConn(raw, &net.UDPAddr{Port: nclient4.ClientPort}), mac: c.mac}
	dhcp, err := nclient4.NewWithConn(conn, c.mac, nclient4.WithTimeout(requestTimeout), nclient4.WithRetry(tries))
	if err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("%s: DHCP: %w", c.link, err)
	}
	return dhcp, conn, nil
}

// why says in plain words what went wrong.
func (c *client) why(err error, start time.Time) error {
	var nak *nclient4.ErrNak
	switch {
	case errors.As(err, &nak):
		return errNak
	case errors.Is(err, nclient4.ErrNoResponse), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no DHCP server answered within %d s", int(time.Since(start).Seconds()))
	}
	return fmt.Errorf("DHCP: %s", strings.ReplaceAll(err.Error(), "\n", " "))
}
