package dhcp

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

func TestConfigErrors(t *testing.T) {
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Mode = 7 }, "unknown mode"},
		{func(c *Config) { c.Server = netip.Addr{} }, "server address"},
		{func(c *Config) { c.Server = ip4("fe80::1") }, "server address"},
		{func(c *Config) { c.LeaseTime = time.Second }, "allowed is 1m0s"},
		{func(c *Config) { c.GuestTime = -1 }, "lease time of guests"},
		{func(c *Config) { c.GuestRate = -1 }, "rate of guests"},
		{func(c *Config) { c.Search = time.Second }, "between searches"},
		{func(c *Config) { c.Machines = nil }, "nobody to ask"},
		{func(c *Config) { c.Store = nil }, "no store"},
		{func(c *Config) { c.Subnets = nil }, "no subnet"},
		{func(c *Config) { c.Subnets = make([]Subnet, 17) }, "at most 16"},
		{func(c *Config) { c.Subnets = append(c.Subnets, c.Subnets[0]) }, "overlap"},
		{func(c *Config) { c.Subnets[0].Prefix = netip.Prefix{} }, "give an IPv4 network"},
		{func(c *Config) { c.Subnets[0].Prefix = prefix("10.77.0.5/24") }, "give an IPv4 network"},
		{func(c *Config) { c.Subnets[0].Prefix = prefix("10.77.0.0/31") }, "give an IPv4 network"},
		{func(c *Config) { c.Subnets[0].Range.Last = ip4("10.78.0.1") }, "not in the subnet"},
		{func(c *Config) { c.Subnets[0].Range.Last = netip.Addr{} }, "not in the subnet"},
		{func(c *Config) { c.Subnets[0].Range.Last = ip4("10.77.0.9") }, "above the last"},
		{func(c *Config) {
			c.Subnets[0].Prefix, c.Subnets[0].Range = prefix("10.0.0.0/8"), Range{ip4("10.1.0.0"), ip4("10.3.0.0")}
		}, "at most 65536"},
		{func(c *Config) { c.Subnets[0].Guests.First = ip4("10.77.0.19") }, "overlap"},
		{func(c *Config) { c.Subnets[0].Router = ip4("10.78.0.1") }, "router"},
		{func(c *Config) { c.Subnets[0].DNS = make([]netip.Addr, 5) }, "at most 4"},
		{func(c *Config) { c.Subnets[0].NTP = []netip.Addr{ip4("fe80::1")} }, "only IPv4"},
		{func(c *Config) { c.Subnets[0].Domain = "a b" }, "DNS name"},
		{func(c *Config) { c.Loaders.BIOS = strings.Repeat("x", 128) }, "at most 127"},
		{func(c *Config) { c.Loaders.HTTP64 = "ssi.efi" }, "http://"},
		{func(c *Config) { c.Loaders.EFI64 = "a b" }, "printable"},
	} {
		cfg := testConfig(nil)
		c.change(&cfg)
		if _, err := NewCore(cfg, nil, time.Now()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want one with %q", err, c.want)
		}
	}
	if _, err := testConfig(nil).checked(); err != nil {
		t.Error(err)
	}
}

// Every address of a range is given before the range counts as full, whatever its
// size is and wherever the search begins.
func TestPick(t *testing.T) {
	all := func(netip.Addr) bool { return true }
	for _, size := range []uint32{1, 2, 63, 64, 65, 100, 128, 200} {
		for _, start := range []int{0, 1, 62, 63, 64, 99} {
			first := number(ip4("10.0.0.0"))
			tb := newTable()
			r := tb.addRange(Range{address(first), address(first + size - 1)})
			r.next = start % int(size)
			seen := map[netip.Addr]bool{}
			for {
				a, ok := r.pick(all)
				if !ok {
					break
				}
				if seen[a] || !r.Contains(a) {
					t.Fatalf("size %d: picked %v", size, a)
				}
				seen[a] = true
				r.mark(a, true)
			}
			if len(seen) != int(size) || r.free != 0 {
				t.Fatalf("size %d, start %d: %d addresses picked, %d free", size, start, len(seen), r.free)
			}
			r.mark(address(first+size/2), false)
			if a, ok := r.pick(all); !ok || a != address(first+size/2) {
				t.Fatalf("size %d: picked %v, %v of one that is free", size, a, ok)
			}
			if a, ok := r.pick(func(netip.Addr) bool { return false }); ok {
				t.Fatalf("picked %v, which may not be", a)
			}
		}
	}
}

func TestLimiter(t *testing.T) {
	now := time.Unix(1000, 0)
	l := newLimiter()
	e := Event{Kind: OtherServer, Addr: ip4("10.0.0.9")}
	if !l.allow(now, e) || l.allow(now.Add(time.Second), e) || !l.allow(now.Add(eventEvery), e) {
		t.Error("the limiter does not let one pass in a minute")
	}
	for i := range 1000 {
		l.allow(now, Event{Kind: OtherServer, Addr: address(uint32(i))})
	}
	if len(l.last) > maxEvents {
		t.Errorf("it remembers %d events", len(l.last))
	}
	if !l.allow(now.Add(3*eventEvery), Event{Kind: Declined}) {
		t.Error("it never forgets")
	}
}

func TestParseMAC(t *testing.T) {
	for s, ok := range map[string]bool{"52:54:00:77:00:02": true, "01:00:5e:00:00:01": false, "00:00:00:00:00:00": false, "52:54": false, "": false, "02:00:5e:10:00:00:00:01": false} {
		if _, err := ParseMAC(s); (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// The filter passes what servers send to clients, and nothing else.
func TestFilter(t *testing.T) {
	raw, err := toClients()
	if err != nil {
		t.Fatal(err)
	}
	insts, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the filter is unknown to the library")
	}
	insts[0] = bpf.LoadConstant{Dst: bpf.RegA, Val: 0} // the library's machine has no packet type: an incoming one
	vm, err := bpf.NewVM(insts)
	if err != nil {
		t.Fatal(err)
	}
	server := netip.MustParseAddrPort("10.77.0.1:67")
	good := appendFrame(nil, mac(1), mac(2), netip.MustParseAddrPort("10.77.0.9:68"), server, []byte("payload"))
	change := func(at int, v byte) []byte {
		b := append([]byte(nil), good...)
		b[at] = v
		return b
	}
	for name, c := range map[string]struct {
		b    []byte
		pass bool
	}{
		"to a client": {good, true},
		"IPv6":        {change(12, 0x86), false},
		"TCP":         {change(ethernetHead+9, unix.IPPROTO_TCP), false},
		"a fragment":  {change(ethernetHead+7, 9), false},
		"other port":  {change(ethernetHead+ipHead+3, 69), false},
	} {
		n, err := vm.Run(c.b)
		if err != nil || (n > 0) != c.pass {
			t.Errorf("%s: %d bytes pass, %v", name, n, err)
		}
	}
}

func TestOtherServer(t *testing.T) {
	server := netip.MustParseAddrPort("10.77.0.9:67")
	r := newRig(t, testConfig(nodes()))
	r.core.cfg.Server = ip4("10.77.0.9")
	offer := r.send(message{kind: discover, mac: mac(3)})
	b := appendFrame(nil, mac(1), mac(9), offer.To, server, offer.Message.ToBytes())
	if a, m, ok := otherServer(b, ip4("10.77.0.1")); !ok || a != ip4("10.77.0.9") || m != mac(9) {
		t.Errorf("%v %v %v", a, m, ok)
	}
	if _, _, ok := otherServer(b, ip4("10.77.0.9")); ok {
		t.Error("our own answer is another server's")
	}
	offer.Message.YourIPAddr = nil
	if _, _, ok := otherServer(appendFrame(nil, mac(1), mac(9), offer.To, server, offer.Message.ToBytes()), ip4("10.77.0.1")); ok {
		t.Error("a proxy counts as a server")
	}
}
