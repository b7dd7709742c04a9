package netconf

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"
)

// server is a DHCP server with one address to give.
type server struct {
	*server4.Server
	done chan struct{}

	mu     sync.Mutex
	id     net.IP
	gives  net.IP
	silent bool   // to requests for an address that is lent already
	nak    bool   // answers these so
	second net.IP // another server that answers each message as well
	seen   []*dhcpv4.DHCPv4
	peers  []net.Addr
}

// serve starts a server on far0 elsewhere. Its leases end after 6 s and are
// renewed after 1 s, or 3 s by any server.
func serve(t *testing.T, e *elsewhere, id, gives string) *server {
	t.Helper()
	s := &server{id: net.ParseIP(id).To4(), gives: net.ParseIP(gives).To4(), done: make(chan struct{})}
	e.do(func() {
		l, err := netlink.LinkByName("far0")
		must(t, err)
		old, err := netlink.AddrList(l, netlink.FAMILY_V4) // of the server before it
		must(t, err)
		for _, a := range old {
			must(t, netlink.AddrDel(l, &a))
		}
		must(t, netlink.AddrReplace(l, &netlink.Addr{IPNet: &net.IPNet{IP: s.id, Mask: net.CIDRMask(24, 32)}}))
		s.Server, err = server4.NewServer("far0", &net.UDPAddr{Port: nclient4.ServerPort}, s.handle)
		must(t, err)
	})
	go func() { defer close(s.done); _ = s.Serve() }() // ends with an error when it is closed
	t.Cleanup(s.stop)
	return s
}

func (s *server) stop() { s.Close(); <-s.done }

func (s *server) set(f func()) { s.mu.Lock(); defer s.mu.Unlock(); f() }

func (s *server) handle(conn net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen, s.peers = append(s.seen, m), append(s.peers, peer)
	if to := m.ServerIdentifier(); to != nil && !to.Equal(s.id) {
		return
	}
	kind := dhcpv4.MessageTypeOffer
	if m.MessageType() == dhcpv4.MessageTypeRequest {
		kind = dhcpv4.MessageTypeAck
		if !m.ClientIPAddr.IsUnspecified() && s.silent {
			return
		}
		if !m.ClientIPAddr.IsUnspecified() && s.nak {
			kind, s.nak = dhcpv4.MessageTypeNak, false
		}
	} else if m.MessageType() != dhcpv4.MessageTypeDiscover {
		return
	}
	if peer.(*net.UDPAddr).IP.IsUnspecified() {
		peer = &net.UDPAddr{IP: net.IPv4bcast, Port: nclient4.ClientPort}
	}
	answer := func(gives net.IP, kind dhcpv4.MessageType) {
		reply, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(gives), dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
			dhcpv4.WithServerIP(s.id), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(s.id)), dhcpv4.WithRouter(net.IPv4(10, 0, 0, 254)), dhcpv4.WithDNS(net.IPv4(10, 0, 0, 53)),
			dhcpv4.WithLeaseTime(6), dhcpv4.WithOption(dhcpv4.OptRenewTimeValue(time.Second)), dhcpv4.WithOption(dhcpv4.OptRebindingTimeValue(3*time.Second)))
		if err == nil {
			_, _ = conn.WriteTo(reply.ToBytes(), peer)
		}
	}
	if kind == dhcpv4.MessageTypeOffer {
		_, _ = conn.WriteTo([]byte("no DHCP"), peer)
		answer(net.IPv4zero, kind) // as a proxyDHCP server
	}
	answer(s.gives, kind)
	if s.second != nil {
		own := s.id
		s.id = s.second
		answer(net.IPv4(10, 0, 0, 66), dhcpv4.MessageTypeOffer)
		s.id = own
	}
}

// saw reports whether a message came of a kind.
func (s *server) saw(which func(m *dhcpv4.DHCPv4, peer net.IP) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, m := range s.seen {
		if which(m, s.peers[i].(*net.UDPAddr).IP) {
			return true
		}
	}
	return false
}

// From the first address over renewals, the death of the server, its refusal
// and a new daemon to the end.
func TestDHCP(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	e := newElsewhere(t)
	cable(t, "eth0", "far0", e)
	first := serve(t, e, "10.0.0.1", "10.0.0.9")
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	o := Options{Interfaces: parse(t, "[[interface]]\nname = \"eth0\"\naddress = [\"dhcp\"]\nrole = \"interconnect\""), Interconnects: []string{"eth0"}, Host: "n7", ResolvConf: resolv}
	m, stop := start(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	must(t, m.Wait(ctx))
	if a := m.Interconnects()[0].Addr; a != netip.MustParseAddr("10.0.0.9") {
		t.Errorf("the address is %s", a)
	}
	eventually(t, "address, route and resolv.conf", func() bool {
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: RouteProtocol}, netlink.RT_FILTER_PROTOCOL)
		text, _ := os.ReadFile(resolv)
		return err == nil && len(routes) == 1 && routes[0].Gw.String() == "10.0.0.254" && strings.Contains(string(text), "nameserver 10.0.0.53\n")
	})
	if !first.saw(func(m *dhcpv4.DHCPv4, _ net.IP) bool { return m.HostName() == "n7" }) {
		t.Error("the server was not told the name")
	}
	if first.saw(func(m *dhcpv4.DHCPv4, _ net.IP) bool {
		return m.MessageType() == dhcpv4.MessageTypeRequest && m.ClientIPAddr.IsUnspecified() && m.RequestedIPAddress().String() != "10.0.0.9"
	}) {
		t.Error("the offer of a proxyDHCP server was taken")
	}
	eventually(t, "its server is asked for more time", func() bool {
		return first.saw(func(m *dhcpv4.DHCPv4, peer net.IP) bool {
			return m.MessageType() == dhcpv4.MessageTypeRequest && m.ClientIPAddr.String() == "10.0.0.9" && peer.String() == "10.0.0.9"
		})
	})

	// The init node dies and another one has its leases: the address stays.
	first.stop()
	second := serve(t, e, "10.0.0.2", "10.0.0.9")
	eventually(t, "the other server renews", func() bool {
		if !has(t, "eth0", "10.0.0.9/24") {
			t.Fatal("the address was given up")
		}
		return m.Status()[0].Server == netip.MustParseAddr("10.0.0.2")
	})

	if !second.saw(func(m *dhcpv4.DHCPv4, _ net.IP) bool {
		return m.MessageType() == dhcpv4.MessageTypeRequest && m.ClientIPAddr.String() == "10.0.0.9" && m.ServerIdentifier() == nil
	}) {
		t.Error("it was not asked to take the lease over")
	}

	// The server says that the address is not ours any more, and gives another.
	second.set(func() { second.nak, second.gives = true, net.IPv4(10, 0, 0, 10).To4() })
	eventually(t, "the new address", func() bool { return has(t, "eth0", "10.0.0.10/24") && !has(t, "eth0", "10.0.0.9/24") })

	// A daemon that is started anew goes on with the address, and asks for it.
	stop()
	if !has(t, "eth0", "10.0.0.10/24") {
		t.Error("the address went with the daemon")
	}
	second.set(func() { second.seen, second.peers = nil, nil })
	m, stop = start(t, o)
	eventually(t, "the same address is asked for", func() bool {
		if !has(t, "eth0", "10.0.0.10/24") {
			t.Fatal("the address was given up")
		}
		return second.saw(func(m *dhcpv4.DHCPv4, _ net.IP) bool {
			return m.MessageType() == dhcpv4.MessageTypeDiscover && m.RequestedIPAddress().String() == "10.0.0.10"
		}) && m.Status()[0].Server.IsValid()
	})
	stop()
	must(t, m.Release())
	eventually(t, "the address is released", func() bool {
		return second.saw(func(m *dhcpv4.DHCPv4, _ net.IP) bool { return m.MessageType() == dhcpv4.MessageTypeRelease })
	})
	if has(t, "eth0", "10.0.0.10/24") {
		t.Error("a released address is still there")
	}
}

// A lease that nobody renews ends, and the text says so.
func TestDHCPEnds(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	e := newElsewhere(t)
	cable(t, "eth0", "far0", e)
	m, _ := start(t, Options{Interfaces: parse(t, "[[interface]]\ndriver = \"*\"\naddress = [\"dhcp\"]")})
	eventually(t, "it asks", func() bool {
		s := m.Status()
		return len(s) == 1 && s[0].Name == "eth0" && s[0].Why == "asking for an address by DHCP"
	})
	s := serve(t, e, "10.0.0.1", "10.0.0.9")
	eventually(t, "the address", func() bool { return has(t, "eth0", "10.0.0.9/24") })
	s.stop()
	eventually(t, "its end", func() bool {
		return !has(t, "eth0", "10.0.0.9/24") && len(m.Status()[0].Addrs) == 0 && strings.Contains(m.Status()[0].Why, "the lease of 10.0.0.9/24 from 10.0.0.1 ended and no server renewed it")
	})
	serve(t, e, "10.0.0.1", "10.0.0.9")
	eventually(t, "the address again", func() bool { return has(t, "eth0", "10.0.0.9/24") && m.Status()[0].Why == "" })
}

// Two DHCP servers answer: the first one counts, and the log names the other one,
// once.
func TestTwoDHCPServers(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	e := newElsewhere(t)
	cable(t, "eth0", "far0", e)
	s := serve(t, e, "10.0.0.1", "10.0.0.9")
	s.set(func() { s.second = net.IPv4(10, 0, 0, 7).To4() })
	var log logged
	m, _ := start(t, Options{
		Interfaces: parse(t, "[[interface]]\nname = \"eth0\"\naddress = [\"dhcp\"]"), Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	const want = "another DHCP server, 10.0.0.7, answers beside 10.0.0.1, whose address this machine takes: turn one of them off"
	eventually(t, "the log tells of the other server", func() bool { return log.count(want) > 0 })
	eventually(t, "the address", func() bool {
		return has(t, "eth0", "10.0.0.9/24") && m.Status()[0].Server == netip.MustParseAddr("10.0.0.1")
	})
	s.set(func() { s.nak = true }) // ask once more
	discovers := func() (n int) {
		s.set(func() {
			for _, m := range s.seen {
				if m.MessageType() == dhcpv4.MessageTypeDiscover {
					n++
				}
			}
		})
		return n
	}
	eventually(t, "it asks again", func() bool { return discovers() > 1 && has(t, "eth0", "10.0.0.9/24") && m.Status()[0].Server.IsValid() })
	if n := log.count(want); n != 1 {
		t.Errorf("it is told %d times", n)
	}
}

// logged is a log.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

// A machine without a network card, and one whose cable is out, say so.
func TestNoNICNoCarrier(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	m, stop := start(t, Options{
		Interfaces:    parse(t, "[[interface]]\nmac = \"52:54:00:00:00:01\"\nname = \"ic0\"\naddress = [\"dhcp\"]\nrole = \"interconnect\""),
		Interconnects: []string{"ic0"},
	})
	says := func(m *Manager, want ...string) func() bool {
		return func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			err := m.Wait(ctx)
			return err != nil && !slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(err.Error(), w) })
		}
	}
	eventually(t, "there is no interface", says(m, "the network is not ready: ic0: missing: this machine has no network interface: is the module of its driver loaded? (for "))
	stop()

	cable(t, "eth0", "far0", nil)
	far0, err := netlink.LinkByName("far0")
	must(t, err)
	must(t, netlink.LinkSetDown(far0))
	m, _ = start(t, Options{
		Interfaces: parse(t, `
[[interface]]
name = "eth0"
address = ["dhcp"]
role = "interconnect"
[[interface]]
mac = "52:54:00:00:00:01"
address = ["10.0.0.1/24"]
`), Interconnects: []string{"eth0"}})
	eventually(t, "there is no carrier", says(m, "eth0: no carrier: no carrier, is the cable in? (for ",
		"52:54:00:00:00:01: missing: no interface has the address 52:54:00:00:00:01; there are ", "eth0 ("))
}
