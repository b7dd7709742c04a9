package install

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ssi/internal/config"
)

const (
	netlinkTime = 5 * time.Second
	dumpTries   = 5       // of a list that changed while it was read
	resolvMax   = 1 << 16 // bytes of a resolv.conf
)

// ReadNetwork asks the kernel of this machine, over rtnetlink(7), how its network
// is. The name servers are those of resolv.conf(5), or those behind the one of
// systemd-resolved, which does not run under ssi.
func ReadNetwork() (Network, error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return Network{}, fmt.Errorf("rtnetlink: %w", err)
	}
	defer nl.Close()
	if err := nl.SetSocketTimeout(netlinkTime); err != nil {
		return Network{}, fmt.Errorf("rtnetlink: %w", err)
	}
	links, err := dump(nl.LinkList)
	if err != nil {
		return Network{}, fmt.Errorf("list the network interfaces: %w", err)
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return nl.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return Network{}, fmt.Errorf("list the addresses: %w", err)
	}
	routes, err := dump(func() ([]netlink.Route, error) {
		return nl.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return Network{}, fmt.Errorf("list the routes: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	var n Network
	for _, l := range links {
		a := l.Attrs()
		if a.Flags&net.FlagUp == 0 || a.Flags&net.FlagLoopback != 0 {
			continue
		}
		link := linkOf(l, names)
		for _, addr := range addrs {
			if addr.LinkIndex == a.Index {
				link.addAddr(addr)
			}
		}
		for _, r := range routes {
			if r.LinkIndex == a.Index {
				link.addRoute(r)
			}
		}
		n.Links = append(n.Links, link)
	}
	n.DNS = nameServers("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
	return n, nil
}

// dump repeats a listing that was interrupted by a change.
func dump[T any](list func() ([]T, error)) (out []T, err error) {
	for range dumpTries {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return out, err
}

func linkOf(l netlink.Link, names map[int]string) Link {
	a := l.Attrs()
	out := Link{Name: a.Name, MTU: a.MTU, Master: names[a.MasterIndex]}
	hardware := a.HardwareAddr
	if len(a.PermHWAddr) == 6 {
		hardware = a.PermHWAddr
	}
	if len(hardware) == 6 { // Ethernet
		out.MAC = hardware.String()
	}
	if t := l.Type(); t != "device" {
		out.Kind = t
	}
	_, err := os.Stat(filepath.Join("/sys/class/net", a.Name, "phy80211"))
	out.Wireless = err == nil
	switch l := l.(type) {
	case *netlink.Vlan:
		out.Parent, out.VLAN = names[a.ParentIndex], l.VlanId
	case *netlink.Bond:
		out.Bond = config.Bond{Mode: l.Mode.String(), Miimon: max(l.Miimon, 0)}
		if l.Mode == netlink.BOND_MODE_802_3AD {
			out.Bond.LACPRate = l.LacpRate.String()
		} else if l.Primary > 0 {
			out.Bond.Primary = names[l.Primary]
		}
	}
	return out
}

// addAddr takes an address of the kernel up, unless the kernel made it itself
// (link-local, router advertisements) or only this machine reaches it.
func (l *Link) addAddr(a netlink.Addr) {
	if a.IPNet == nil {
		return
	}
	ip, ok := netip.AddrFromSlice(a.IP)
	ones, bits := a.Mask.Size()
	if ip = ip.Unmap(); !ok || bits == 0 || ip.IsLinkLocalUnicast() || ip.IsLoopback() || a.Flags&unix.IFA_F_SECONDARY != 0 && ip.Is6() {
		return
	}
	// The kernel counts 0xffffffff seconds as forever.
	lent := a.Flags&unix.IFA_F_PERMANENT == 0 && a.ValidLft > 0 && uint32(a.ValidLft) != 0xffffffff
	switch {
	case !lent:
		l.Addrs = append(l.Addrs, netip.PrefixFrom(ip, ones))
	case ip.Is4():
		l.DHCP = true
	}
}

// addRoute takes a route up that somebody has set by hand, by a script or by the
// program that configures the network. Those of the kernel, of router
// advertisements and of routing daemons come again by themselves
// (linux/rtnetlink.h).
func (l *Link) addRoute(r netlink.Route) {
	if r.Type != unix.RTN_UNICAST || r.Protocol != unix.RTPROT_BOOT && r.Protocol != unix.RTPROT_STATIC && r.Protocol != unix.RTPROT_DHCP {
		return
	}
	to := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if r.Family == unix.AF_INET6 {
		to = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	if r.Dst != nil {
		ip, ok := netip.AddrFromSlice(r.Dst.IP)
		ones, bits := r.Dst.Mask.Size()
		if !ok || bits == 0 {
			return
		}
		if r.Family == unix.AF_INET {
			ip = ip.Unmap()
		}
		to = netip.PrefixFrom(ip, ones)
	}
	route := Route{To: to.Masked(), Metric: r.Priority}
	if via, ok := netip.AddrFromSlice(r.Gw); ok {
		route.Via = via.Unmap()
	}
	l.Routes = append(l.Routes, route)
}

// nameServers reads resolv.conf(5) files until one names a server that is not on
// this machine.
func nameServers(paths ...string) []netip.Addr {
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			continue // there need not be one
		}
		b, err := io.ReadAll(io.LimitReader(f, resolvMax))
		_ = f.Close()
		if servers := resolvServers(b); err == nil && len(servers) > 0 {
			return servers
		}
	}
	return nil
}

// resolvServers are the name servers of a resolv.conf(5) that are elsewhere, at
// most config.MaxDNS.
func resolvServers(text []byte) (servers []netip.Addr) {
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan() && len(servers) < config.MaxDNS; {
		fields := strings.Fields(s.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		ip, err := netip.ParseAddr(fields[1])
		if err != nil || ip.IsLoopback() || ip.IsUnspecified() || ip.IsMulticast() || ip.Zone() != "" || ip.Is4In6() {
			continue
		}
		servers = append(servers, ip)
	}
	return servers
}
