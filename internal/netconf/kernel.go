package netconf

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	netlinkTimeout = 5 * time.Second
	dumpTries      = 5 // of a list that changed while it was read
	mainTable      = unix.RT_TABLE_MAIN
)

// kernel reads and changes the network of this machine over rtnetlink(7).
type kernel struct {
	nl         *netlink.Handle
	ioctl      int // any socket, for ethtool
	loadModule func(name string) error
}

func openKernel(loadModule func(string) error) (*kernel, error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("rtnetlink: %w", err)
	}
	if err := nl.SetSocketTimeout(netlinkTimeout); err != nil {
		nl.Close()
		return nil, fmt.Errorf("rtnetlink: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		nl.Close()
		return nil, fmt.Errorf("ethtool socket: %w", err)
	}
	return &kernel{nl: nl, ioctl: fd, loadModule: loadModule}, nil
}

func (k *kernel) close() {
	k.nl.Close()
	unix.Close(k.ioctl)
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

// state reads what there is.
func (k *kernel) state() (State, error) {
	links, err := dump(k.nl.LinkList)
	if err != nil {
		return State{}, fmt.Errorf("list the network interfaces: %w", err)
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return k.nl.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return State{}, fmt.Errorf("list the addresses: %w", err)
	}
	routes, err := dump(func() ([]netlink.Route, error) {
		return k.nl.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: RouteProtocol, Table: mainTable}, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return State{}, fmt.Errorf("list the routes: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	var s State
	for _, l := range links {
		link := k.linkOf(l, names)
		for _, a := range addrs {
			if a.LinkIndex == link.Index {
				link.Addrs = append(link.Addrs, addrOf(a))
			}
		}
		s.Links = append(s.Links, link)
	}
	for _, r := range routes {
		if route, ok := routeOf(r, names); ok {
			s.Routes = append(s.Routes, route)
		}
	}
	return s, nil
}

func (k *kernel) linkOf(l netlink.Link, names map[int]string) Link {
	a := l.Attrs()
	out := Link{
		Index: a.Index, Name: a.Name, MTU: a.MTU, MAC: a.HardwareAddr.String(),
		Up: a.Flags&net.FlagUp != 0, Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0,
		Master: names[a.MasterIndex],
	}
	if len(a.PermHWAddr) == 6 {
		out.MAC = a.PermHWAddr.String()
	}
	if t := l.Type(); t != "device" {
		out.Kind = t
	}
	switch l := l.(type) {
	case *netlink.Vlan:
		out.Parent, out.VLAN = names[a.ParentIndex], l.VlanId
	case *netlink.Bond:
		out.Bond = BondOptions{Mode: l.Mode.String(), Miimon: max(l.Miimon, 0)}
		if l.Mode == netlink.BOND_MODE_802_3AD {
			out.Bond.LACPRate = l.LacpRate.String()
		}
		if l.Primary > 0 {
			out.Bond.Primary = names[l.Primary]
		}
	}
	if info, err := unix.IoctlGetEthtoolDrvinfo(k.ioctl, a.Name); err == nil {
		out.Driver = unix.ByteSliceToString(info.Driver[:])
	}
	return out
}

func addrOf(a netlink.Addr) Addr {
	out := Addr{Prefix: prefixOf(a.IPNet)}
	// The kernel counts 0xffffffff seconds as forever.
	if a.Flags&unix.IFA_F_PERMANENT == 0 && a.ValidLft > 0 && uint32(a.ValidLft) != 0xffffffff {
		out.Lifetime = a.ValidLft
	}
	// IPv6 addresses with an end were made of router advertisements.
	out.Kernel = out.Prefix.Addr().Is6() && (out.Prefix.Addr().IsLinkLocalUnicast() || out.Lifetime > 0) || out.Prefix.Addr().IsLoopback()
	return out
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, _ := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones)
}

func routeOf(r netlink.Route, names map[int]string) (Route, bool) {
	out := Route{Link: names[r.LinkIndex], Metric: r.Priority, OnLink: r.Flags&unix.RTNH_F_ONLINK != 0}
	if via, ok := netip.AddrFromSlice(r.Gw); ok {
		out.Via = via.Unmap()
	}
	switch {
	case r.Dst != nil:
		out.To = prefixOf(r.Dst)
	case r.Family == unix.AF_INET6:
		out.To = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	default:
		out.To = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return out, out.Link != "" && out.To.IsValid()
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// apply carries an operation out.
func (k *kernel) apply(op Op) error {
	if err := k.try(op); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}

func (k *kernel) try(op Op) error {
	switch op.Verb {
	case AddBond, AddVLAN:
		return k.add(op)
	case RemoveRoute:
		return k.nl.RouteDel(k.route(op.Route))
	case AddRoute:
		r := k.route(op.Route)
		if r.LinkIndex == 0 {
			return fmt.Errorf("there is no interface %s", op.Link)
		}
		return k.nl.RouteReplace(r)
	}
	l, err := k.nl.LinkByName(op.Link)
	if err != nil {
		return err
	}
	switch op.Verb {
	case Rename:
		return k.nl.LinkSetName(l, op.To)
	case Delete:
		return k.nl.LinkDel(l)
	case SetBond:
		b, err := k.bond(op.Link, op.Bond)
		if err != nil {
			return err
		}
		b.Index = l.Attrs().Index
		return k.nl.LinkModify(b)
	case Enslave:
		m, err := k.nl.LinkByName(op.To)
		if err != nil {
			return err
		}
		return k.nl.LinkSetMaster(l, m)
	case Release:
		return k.nl.LinkSetNoMaster(l)
	case SetMTU:
		return k.nl.LinkSetMTU(l, op.Number)
	case Up:
		return k.nl.LinkSetUp(l)
	case Down:
		return k.nl.LinkSetDown(l)
	case AddAddress:
		return k.nl.AddrReplace(l, &netlink.Addr{IPNet: ipNet(op.Addr.Prefix), ValidLft: op.Addr.Lifetime, PreferedLft: op.Addr.Lifetime})
	case RemoveAddress:
		return k.nl.AddrDel(l, &netlink.Addr{IPNet: ipNet(op.Addr.Prefix)})
	}
	return fmt.Errorf("unknown operation")
}

// add creates a link, with the module of its kind: a kernel without modprobe
// cannot load that by itself.
func (k *kernel) add(op Op) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = op.Link
	var link netlink.Link
	module := "bonding"
	if op.Verb == AddBond {
		b, err := k.bond(op.Link, op.Bond)
		if err != nil {
			return err
		}
		link = b
	} else {
		module = "8021q"
		parent, err := k.nl.LinkByName(op.To)
		if err != nil {
			return err
		}
		attrs.ParentIndex = parent.Attrs().Index
		link = &netlink.Vlan{LinkAttrs: attrs, VlanId: op.Number, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}
	}
	var loadErr error
	if k.loadModule != nil {
		loadErr = k.loadModule(module)
	}
	// When loading the module has just made a bond0 by itself and that is the
	// name wanted, this is EEXIST, and the next plan takes that bond.
	err := k.nl.LinkAdd(link)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return errors.Join(fmt.Errorf("this kernel has no module %s: %w", module, err), loadErr)
	}
	return err
}

// bond is a bond with those options that are set.
func (k *kernel) bond(name string, o BondOptions) (*netlink.Bond, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	b := netlink.NewLinkBond(attrs)
	if o.Mode != "" {
		b.Mode = netlink.StringToBondMode(o.Mode)
	}
	if o.Miimon != 0 {
		b.Miimon = o.Miimon
	}
	if o.LACPRate != "" {
		b.LacpRate = netlink.StringToBondLacpRate(o.LACPRate)
	}
	if o.Primary != "" {
		l, err := k.nl.LinkByName(o.Primary)
		if err != nil {
			return nil, err
		}
		b.Primary = l.Attrs().Index
	}
	return b, nil
}

func (k *kernel) route(r Route) *netlink.Route {
	out := &netlink.Route{Dst: ipNet(r.To), Protocol: RouteProtocol, Table: mainTable, Priority: r.Metric, Scope: netlink.SCOPE_UNIVERSE}
	if l, err := k.nl.LinkByName(r.Link); err == nil {
		out.LinkIndex = l.Attrs().Index
	}
	if r.Via.IsValid() {
		out.Gw = r.Via.AsSlice()
	} else {
		out.Scope = netlink.SCOPE_LINK
	}
	if r.OnLink {
		out.SetFlag(netlink.FLAG_ONLINK)
	}
	return out
}
