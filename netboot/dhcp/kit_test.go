package dhcp

import (
	"context"
	"encoding/hex"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// park is a Machines for tests.
type park struct {
	machines map[MAC]Machine
}

func (p park) Lookup(q Query) Machine { return p.machines[q.MAC] }

func (p park) Owner(a netip.Addr) (MAC, bool) {
	for mac, m := range p.machines {
		if m.Addr == a && m.State == Boot {
			return mac, true
		}
	}
	return MAC{}, false
}

// memory is a Store for tests.
type memory struct {
	mu      sync.Mutex
	leases  map[netip.Addr]Lease
	commits int
	fail    error
}

func newMemory() *memory { return &memory{leases: map[netip.Addr]Lease{}} }

func (m *memory) Load(context.Context) ([]Lease, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.leases)), nil
}

func (m *memory) Commit(_ context.Context, changes []Change) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.commits++
	for _, c := range changes {
		if c.Delete {
			delete(m.leases, c.Lease.Addr)
		} else {
			m.leases[c.Lease.Addr] = c.Lease
		}
	}
	return nil
}

func (m *memory) setFail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

func (m *memory) get(a netip.Addr) (Lease, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l, ok := m.leases[a]
	return l, ok
}

var errStore = errors.New("no leader")

func ip4(s string) netip.Addr { return netip.MustParseAddr(s) }

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// mac is the address of the n-th machine.
func mac(n int) MAC { return MAC{0x52, 0x54, 0, 0x77, byte(n >> 8), byte(n)} }

// testConfig is a configuration with ten addresses for machines and four for guests.
func testConfig(machines map[MAC]Machine) Config {
	return Config{
		Interface: "s0",
		Server:    ip4("10.77.0.1"),
		Subnets: []Subnet{{
			Prefix: netip.MustParsePrefix("10.77.0.0/24"),
			Range:  Range{ip4("10.77.0.10"), ip4("10.77.0.19")},
			Guests: Range{ip4("10.77.0.200"), ip4("10.77.0.203")},
			Router: ip4("10.77.0.254"),
			DNS:    []netip.Addr{ip4("10.77.0.1"), ip4("10.77.0.2")},
			NTP:    []netip.Addr{ip4("10.77.0.1")},
			Domain: "cluster.example",
		}},
		Loaders: Loaders{
			IPXE: "http://10.77.0.1/boot.ipxe", BIOS: "undionly.kpxe",
			EFI32: "ia32/snponly.efi", EFI64: "snponly.efi", EFIARM64: "arm64/snponly.efi",
			HTTP64: "http://10.77.0.1/ssi.efi", HTTPARM64: "http://10.77.0.1/arm64/ssi.efi",
		},
		Machines: park{machines},
		Store:    newMemory(),
	}
}

// rig drives a core without sockets.
type rig struct {
	t    *testing.T
	core *Core
	now  time.Time
	last Decision
}

func newRig(t *testing.T, cfg Config, leases ...Lease) *rig {
	t.Helper()
	now := time.Unix(1_800_000_000, 0)
	core, err := NewCore(cfg, leases, now)
	if err != nil {
		t.Fatal(err)
	}
	return &rig{t: t, core: core, now: now}
}

// message is a packet of a machine.
type message struct {
	kind    dhcpv4.MessageType
	mac     MAC
	client  string // ciaddr
	relay   string // giaddr
	wanted  string
	server  string
	options string // hex
	flags   uint16
	port    uint16
	from    string
}

func (m message) bytes() []byte {
	d := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: ethernet, ClientHWAddr: m.mac[:], Flags: m.flags,
		TransactionID: dhcpv4.TransactionID{1, 2, 3, 4}, Options: dhcpv4.Options{},
	}
	if m.options != "" {
		b, err := hex.DecodeString(strings.ReplaceAll(m.options, " ", ""))
		if err != nil {
			panic(err)
		}
		if err := d.Options.FromBytes(b); err != nil {
			panic(err)
		}
	}
	if m.kind != 0 {
		d.Options[53] = []byte{byte(m.kind)}
	}
	if m.client != "" {
		d.ClientIPAddr = ip4(m.client).AsSlice()
	}
	if m.relay != "" {
		d.GatewayIPAddr = ip4(m.relay).AsSlice()
	}
	if m.wanted != "" {
		d.Options[50] = ip4(m.wanted).AsSlice()
	}
	if m.server != "" {
		d.Options[54] = ip4(m.server).AsSlice()
	}
	return d.ToBytes()
}

// send gives a packet to the core and returns its reply, or nil.
func (r *rig) send(m message) *Reply {
	r.t.Helper()
	port := m.port
	if port == 0 {
		port = portServer
	}
	from := netip.AddrPortFrom(netip.IPv4Unspecified(), portClient)
	if m.from != "" {
		from = netip.MustParseAddrPort(m.from)
	}
	req, err := ParseRequest(m.bytes(), port, from)
	if err != nil {
		r.t.Fatal(err)
	}
	r.last = r.core.Handle(r.now, req)
	return r.last.Reply
}

// show is a reply in short: "offer 10.77.0.10", or "silence".
func show(r *Reply) string {
	if r == nil {
		return "silence"
	}
	s := strings.ToLower(r.Message.MessageType().String())
	if a := addrOf(r.Message.YourIPAddr); a.IsValid() {
		s += " " + a.String()
	}
	return s
}

// want sends a packet and checks the answer.
func (r *rig) want(want string, m message) *Reply {
	r.t.Helper()
	reply := r.send(m)
	if got := show(reply); got != want {
		r.t.Fatalf("answer to %v is %q, want %q", m.kind, got, want)
	}
	return reply
}

// get does a whole exchange and returns the address.
func (r *rig) get(m MAC) netip.Addr {
	r.t.Helper()
	offer := r.send(message{kind: dhcpv4.MessageTypeDiscover, mac: m})
	if offer == nil {
		r.t.Fatalf("no offer for %v", m)
	}
	a := addrOf(offer.Message.YourIPAddr)
	r.want("ack "+a.String(), message{kind: dhcpv4.MessageTypeRequest, mac: m, wanted: a.String(), server: "10.77.0.1"})
	if len(r.last.Changes) == 0 || r.last.Changes[len(r.last.Changes)-1].Lease.Addr != a {
		r.t.Fatalf("acknowledged without a change of the lease: %+v", r.last.Changes)
	}
	return a
}

// saw reports whether the last decision has an event of a kind.
func (r *rig) saw(k Kind) bool {
	return slices.ContainsFunc(r.last.Events, func(e Event) bool { return e.Kind == k })
}
