package dhcp

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// seedFlag replays one schedule.
var seedFlag = flag.Uint64("seed", 0, "replay the schedule of this seed")

// world is machines and two servers that share a store, of which one is in charge.
// Replies, commits and servers get lost.
type world struct {
	rng      *rand.Rand
	now      time.Time
	skew     [2]time.Duration // of the servers' clocks
	machines map[MAC]Machine
	macs     []MAC // in a fixed order
	store    map[netip.Addr]Lease
	cores    [2]*Core
	charge   int
	holds    map[MAC]hold // what machines believe
	offers   map[MAC]netip.Addr
	log      []string
	acks     int
}

// hold is an address that a machine uses.
type hold struct {
	addr  netip.Addr
	until time.Time
}

func newWorld(seed uint64) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1_800_000_000, 0),
		machines: map[MAC]Machine{}, store: map[netip.Addr]Lease{}, holds: map[MAC]hold{}, offers: map[MAC]netip.Addr{},
	}
	for i := range 16 {
		m := mac(i)
		w.macs = append(w.macs, m)
		switch {
		case i < 3:
			w.machines[m] = Machine{State: Boot, Addr: address(number(ip4("10.77.0.10")) + uint32(i))}
		case i < 11: // with those above, as many as there are addresses, and one more
			w.machines[m] = Machine{State: Boot}
		}
	}
	w.skew[1] = time.Duration(w.rng.IntN(40)-20) * time.Second
	return w
}

func (w *world) clock() time.Time { return w.now.Add(w.skew[w.charge]) }

func (w *world) takeOver() error {
	w.charge = 1 - w.charge
	cfg := testConfig(w.machines)
	cfg.LeaseTime, cfg.GuestTime = MinLease, MinLease // so that many end
	core, err := NewCore(cfg, slices.SortedFunc(maps.Values(w.store), func(a, b Lease) int { return a.Addr.Compare(b.Addr) }), w.clock())
	w.cores[w.charge] = core
	return err
}

func (w *world) logf(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf(format, args...))
	if len(w.log) > 40 {
		w.log = w.log[1:]
	}
}

// send sends a packet to the server in charge and returns the reply that arrives.
func (w *world) send(m message) (*Reply, error) {
	req, err := ParseRequest(m.bytes(), portServer, netip.AddrPortFrom(netip.IPv4Unspecified(), portClient))
	if err != nil {
		return nil, err
	}
	d := w.cores[w.charge].Handle(w.clock(), req)
	w.logf("%v %v wanted %s client %s -> %s, changes %v", m.kind, m.mac, m.wanted, m.client, show(d.Reply), d.Changes)
	if len(d.Changes) > 0 {
		switch w.rng.IntN(20) {
		case 0: // the commit fails
			w.logf("commit lost")
			return nil, nil
		case 1: // it succeeds, and the server dies before it answers
			w.apply(d.Changes)
			w.logf("server died")
			return nil, w.takeOver()
		}
		w.apply(d.Changes)
	}
	if w.rng.IntN(10) == 0 {
		return nil, nil
	}
	return d.Reply, nil
}

func (w *world) apply(changes []Change) {
	for _, c := range changes {
		if c.Delete {
			delete(w.store, c.Lease.Addr)
		} else {
			w.store[c.Lease.Addr] = c.Lease
		}
	}
}

// step does something.
func (w *world) step() error {
	w.now = w.now.Add(time.Duration(w.rng.IntN(20_000)) * time.Millisecond)
	if w.rng.IntN(40) == 0 {
		w.now = w.now.Add(time.Duration(w.rng.IntN(90)) * time.Minute)
	}
	if w.rng.IntN(25) == 0 {
		w.logf("take-over")
		return w.takeOver()
	}
	m := w.macs[w.rng.IntN(len(w.macs))]
	h, holds := w.holds[m]
	if holds && !w.now.Before(h.until) {
		delete(w.holds, m)
		holds = false
	}
	p := message{mac: m}
	switch {
	case holds && w.rng.IntN(6) == 0:
		p.kind, p.client = release, h.addr.String()
		delete(w.holds, m) // whether or not the packet arrives
	case holds && w.rng.IntN(12) == 0:
		p.kind, p.wanted = decline, h.addr.String()
		delete(w.holds, m)
	case holds && w.rng.IntN(3) == 0: // it was restarted and forgot
		delete(w.holds, m)
		p.kind = discover
	case holds && w.rng.IntN(2) == 0:
		p.kind, p.wanted = request, h.addr.String()
	case holds:
		p.kind, p.client = request, h.addr.String()
	case w.offers[m].IsValid():
		p.kind, p.wanted, p.server = request, w.offers[m].String(), "10.77.0.1"
		delete(w.offers, m)
	default:
		p.kind = discover
		if w.rng.IntN(4) == 0 {
			p.wanted = address(number(ip4("10.77.0.8")) + w.rng.Uint32N(14)).String()
		}
	}
	reply, err := w.send(p)
	if err != nil || reply == nil {
		return err
	}
	a := addrOf(reply.Message.YourIPAddr)
	switch reply.Message.MessageType() {
	case dhcpv4.MessageTypeOffer:
		w.offers[m] = a
	case dhcpv4.MessageTypeNak:
		delete(w.holds, m)
	case dhcpv4.MessageTypeAck:
		w.acks++
		d := reply.Message.IPAddressLeaseTime(0)
		w.holds[m] = hold{a, w.now.Add(d)}
		if l, ok := w.store[a]; !ok || l.MAC != m || l.Declined {
			return fmt.Errorf("%v was told of %v, and the store has %v", m, a, l)
		}
	}
	return w.check()
}

// check says whether two machines use an address, or one has what it may not have.
func (w *world) check() error {
	users := map[netip.Addr]MAC{}
	for m, h := range w.holds {
		if !w.now.Before(h.until) {
			continue
		}
		if other, ok := users[h.addr]; ok {
			return fmt.Errorf("%v and %v both use %v", m, other, h.addr)
		}
		users[h.addr] = m
		s := testConfig(nil).Subnets[0]
		if boots := w.machines[m].State == Boot; boots && !s.Range.Contains(h.addr) || !boots && !s.Guests.Contains(h.addr) {
			return fmt.Errorf("%v uses %v", m, h.addr)
		}
	}
	t := w.cores[w.charge].table
	for _, r := range t.ranges {
		free := 0
		for i := range r.size() {
			if t.byAddr[address(number(r.First)+uint32(i))] == nil {
				free++
			}
		}
		if free != r.free {
			return fmt.Errorf("range %v counts %d free addresses, there are %d", r.First, r.free, free)
		}
	}
	return nil
}

// Whatever gets lost, no address is used by two machines, and none is told of
// without a lease in the store.
func TestSimulation(t *testing.T) {
	seeds := []uint64{*seedFlag}
	if *seedFlag == 0 {
		seeds = nil
		for i := range uint64(300) {
			seeds = append(seeds, i+1)
		}
	}
	acks := 0
	for _, seed := range seeds {
		w := newWorld(seed)
		if err := w.takeOver(); err != nil {
			t.Fatal(err)
		}
		for i := range 400 {
			if err := w.step(); err != nil {
				for _, line := range w.log {
					t.Log(line)
				}
				t.Fatalf("seed %d, step %d: %v", seed, i, err)
			}
		}
		acks += w.acks
	}
	if acks < 30*len(seeds) {
		t.Errorf("%d acknowledged leases in %d schedules: the simulation does not do its work", acks, len(seeds))
	}
}
