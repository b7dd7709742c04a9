package machine

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Script is the name of the boot script of iPXE: its URL is what DHCP answers to
// iPXE, and so tells where the cluster serves.
const Script = "boot.ipxe"

const (
	findTime  = time.Second // to wait for answers on one interface
	maxFinds  = 8           // interfaces with the MAC of the machine: VLANs have that of their parent
	maxOffers = 32          // answers of one search that are looked at
	portPXE   = 4011        // of boot servers: PXE specification 2.1, section 2.2.3
	maxFrame  = 1500        // bytes of an answer
)

// Find asks on the segment of the machine with this MAC address who boots machines
// now, and returns its URL (http://HOST:PORT).
func Find(ctx context.Context, mac string) (string, error) {
	m, err := ParseMAC(mac)
	url := ""
	if err == nil {
		url, err = find(ctx, m)
	}
	if err != nil {
		return "", fmt.Errorf("find who boots machines: %w", err)
	}
	return url, nil
}

// find asks on the segment of this machine who boots machines now, and returns its
// URL (http://HOST:PORT): when init has moved, what the boot loader told holds no
// more. It asks as iPXE would, at the port for programs that have an address
// already; so it disturbs no lease, and no other DHCP server answers by mistake.
func find(ctx context.Context, mac MAC) (string, error) {
	links, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	errs := []error{fmt.Errorf("no interface with the address %s has an IPv4 address", mac)}
	asked := 0
	for _, l := range links {
		own := ipv4Of(l)
		if !bytes.Equal(l.HardwareAddr, mac[:]) || !own.IsValid() || asked == maxFinds {
			continue
		}
		if asked++; asked == 1 {
			errs = nil
		}
		url, err := findOn(ctx, l.Name, mac, own)
		if err == nil {
			return url, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", l.Name, err))
	}
	return "", errors.Join(errs...)
}

func ipv4Of(l net.Interface) netip.Addr {
	addrs, err := l.Addrs()
	if err != nil {
		return netip.Addr{} // it went away
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

func findOn(ctx context.Context, ifname string, mac MAC, own netip.Addr) (string, error) {
	lc := net.ListenConfig{Control: bindTo(ifname)}
	c, err := lc.ListenPacket(ctx, "udp4", ":0")
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := c.SetDeadline(time.Now().Add(findTime)); err != nil {
		return "", err
	}
	var xid dhcpv4.TransactionID
	_, _ = rand.Read(xid[:]) // never fails, crypto/rand
	to := &net.UDPAddr{IP: net.IPv4bcast, Port: portPXE}
	if _, err := c.WriteTo(question4011(mac, own, xid).ToBytes(), to); err != nil {
		return "", err
	}
	buf := make([]byte, maxFrame)
	for range maxOffers {
		n, _, err := c.ReadFrom(buf)
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		if err != nil {
			return "", fmt.Errorf("nobody answers who boots machines: %w", err)
		}
		if url, err := parseOffer(buf[:n], mac, xid); err == nil {
			return url, nil
		}
	}
	return "", errors.New("what answers boots no machines of a cluster")
}

// question4011 is a DHCPINFORM (RFC 2131 section 3.4) with the user class of iPXE.
func question4011(mac MAC, own netip.Addr, xid dhcpv4.TransactionID) *dhcpv4.DHCPv4 {
	const ethernet = 1 // RFC 1700, "Number Hardware Type"
	return &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: ethernet, TransactionID: xid, ClientHWAddr: mac[:], ClientIPAddr: own.AsSlice(),
		Options: dhcpv4.Options{53: {byte(dhcpv4.MessageTypeInform)}, 55: {54, 67}, 60: []byte("PXEClient"), 77: []byte("iPXE")},
	}
}

// parseOffer takes the URL of the cluster from an answer.
func parseOffer(b []byte, mac MAC, xid dhcpv4.TransactionID) (string, error) {
	m, err := dhcpv4.FromBytes(b)
	if err != nil {
		return "", err
	}
	if m.OpCode != dhcpv4.OpcodeBootReply || m.TransactionID != xid || !bytes.Equal(m.ClientHWAddr, mac[:]) {
		return "", errors.New("it is for another question")
	}
	file := string(m.Options.Get(dhcpv4.OptionBootfileName))
	u, err := url.Parse(file)
	if err != nil {
		return "", fmt.Errorf("boot file: %w", err)
	}
	at, err := netip.ParseAddrPort(u.Host)
	if err != nil || !at.Addr().Is4() || at.Port() == 0 || u.Scheme != "http" || u.Path != "/"+Script || u.User != nil || u.RawQuery != "" {
		return "", fmt.Errorf("boot file %.80q: that is not of a cluster", file)
	}
	return "http://" + at.String(), nil
}
