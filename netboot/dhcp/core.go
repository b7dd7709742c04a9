package dhcp

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Core decides what is answered. It is not safe for concurrent use.
type Core struct {
	cfg    Config
	nets   []*subnet
	table  *table
	guests bucket
	out    Decision // of the request at hand
}

// subnet is a Subnet with what is free of it.
type subnet struct {
	Subnet
	machines *addrRange
	guests   *addrRange
}

// Decision is what is to be done about a request, in this order: commit the
// changes; if that succeeded, send the reply.
type Decision struct {
	Changes []Change
	Reply   *Reply // nil: no answer
	Events  []Event
}

// NewCore returns a core with the leases of a store. now is to have the monotonic
// clock's reading, so that leases do not end when the clock is set.
func NewCore(cfg Config, leases []Lease, now time.Time) (*Core, error) {
	cfg, err := cfg.checked()
	if err != nil {
		return nil, err
	}
	c := &Core{cfg: cfg, table: newTable(), guests: bucket{rate: float64(cfg.GuestRate), tokens: float64(cfg.GuestRate), at: now}}
	for _, s := range cfg.Subnets {
		c.nets = append(c.nets, &subnet{Subnet: s, machines: c.table.addRange(s.Range), guests: c.table.addRange(s.Guests)})
	}
	for _, l := range leases {
		c.load(l, now)
	}
	return c, nil
}

// load takes over a lease. One that is outside of all subnets is left alone: the
// configuration may come back.
func (c *Core) load(l Lease, now time.Time) {
	if !l.Addr.Is4() || c.subnetOf(l.Addr) == nil || c.table.byAddr[l.Addr] != nil {
		return
	}
	e := &entry{lease: l, until: now.Add(l.Expires.Sub(now.Round(0)) + Grace)}
	if old := c.table.byMAC[l.MAC]; old != nil && !l.Declined {
		// Only a store that lost a deletion has two. The machine uses the newer one;
		// the other address belongs to nobody until its time is over.
		if old.until.Before(e.until) {
			c.table.remove(old)
			old.lease.Declined = true
			c.table.add(old)
		} else {
			e.lease.Declined = true
		}
	}
	c.table.add(e)
}

// Leases returns all leases, in no order.
func (c *Core) Leases() []Lease {
	var all []Lease
	for _, e := range c.table.byAddr {
		if !e.offered {
			all = append(all, e.lease)
		}
	}
	return all
}

// Expire ends what is over.
func (c *Core) Expire(now time.Time) Decision {
	c.out = Decision{}
	c.expire(now)
	return c.out
}

// maxExpire is how many entries end with one request, so that none waits for
// thousands.
const maxExpire = 64

func (c *Core) expire(now time.Time) {
	for range maxExpire {
		e := c.table.due(now)
		if e == nil {
			return
		}
		c.drop(e)
	}
}

// drop makes an address free.
func (c *Core) drop(e *entry) {
	c.table.remove(e)
	if !e.offered {
		c.out.Changes = append(c.out.Changes, Change{Lease: e.lease, Delete: true})
	}
}

func (c *Core) event(e Event) { c.out.Events = append(c.out.Events, e) }

// Handle decides about a request.
func (c *Core) Handle(now time.Time, r *Request) Decision {
	c.out = Decision{}
	c.expire(now)
	machine := c.cfg.Machines.Lookup(r.query)
	if !c.serves(r, machine) {
		return c.out
	}
	if r.ends() { // RELEASE, DECLINE: no answer, so nothing to be limited
		c.end(now, r)
		return c.out
	}
	if machine.State != Boot && !c.guests.take(now) {
		c.event(Event{Kind: GuestFlood, MAC: r.mac})
		return c.out
	}
	switch {
	case c.cfg.Mode == Proxy || r.Port == portPXE:
		c.proxy(r, machine)
	default:
		c.serve(now, r, machine)
	}
	return c.out
}

// serves reports whether the machine gets any answer.
func (c *Core) serves(r *Request, machine Machine) bool {
	if c.cfg.Mode == Proxy || r.Port == portPXE {
		return true // proxy decides
	}
	s := c.subnetFor(r)
	return s != nil && (machine.State == Boot || s.guests.size() > 0)
}

// subnetFor is the subnet that a request comes from, or nil: that of the relay; of
// the address that the machine has, as it renews past the relay; or our own.
func (c *Core) subnetFor(r *Request) *subnet {
	if r.relay.IsValid() {
		return c.subnetOf(r.relay)
	}
	if r.client.IsValid() {
		if s := c.subnetOf(r.client); s != nil {
			return s
		}
	}
	return c.subnetOf(c.cfg.Server)
}

func (c *Core) subnetOf(a netip.Addr) *subnet {
	for _, s := range c.nets {
		if s.Prefix.Contains(a) {
			return s
		}
	}
	return nil
}

// serve answers a request of a machine that wants an address.
func (c *Core) serve(now time.Time, r *Request, machine Machine) {
	s := c.subnetFor(r)
	switch r.kind {
	case dhcpv4.MessageTypeDiscover:
		c.discover(now, r, s, machine)
	case dhcpv4.MessageTypeRequest:
		c.request(now, r, s, machine)
	case dhcpv4.MessageTypeInform:
		if !s.Prefix.Contains(r.client) {
			return
		}
		m := c.newReply(r, dhcpv4.MessageTypeAck)
		m.ClientIPAddr = r.client.AsSlice()
		c.configure(m, r, &s.Subnet, machine)
		c.out.Reply = r.address(m)
	}
}

// bootfile is what a machine boots: only one that may boot boots anything but what
// Machines gives it.
func (c *Core) bootfile(r *Request, machine Machine) string {
	f := r.query.Firmware
	if f == None {
		return ""
	}
	file := machine.Bootfile
	if file == "" && machine.State == Boot {
		file = c.cfg.Loaders.of(f)
	}
	err := checkBootfile(f, file)
	if err == nil && file == "" && machine.State == Boot {
		err = fmt.Errorf("its firmware is %v, processor type %d", f, r.query.Arch)
	}
	if err != nil {
		c.event(Event{Kind: NoLoader, MAC: r.mac, Err: err})
		return ""
	}
	return file
}

// proxy says what to boot, and nothing else: to a request for that at port 4011;
// in mode Proxy also to DISCOVER, beside the offer of the server that gives
// addresses.
func (c *Core) proxy(r *Request, machine Machine) {
	kind := dhcpv4.MessageTypeAck
	switch {
	case r.Port == portPXE && (r.kind == dhcpv4.MessageTypeRequest || r.kind == dhcpv4.MessageTypeInform):
	case r.Port == portServer && r.kind == dhcpv4.MessageTypeDiscover:
		kind = dhcpv4.MessageTypeOffer
	default:
		return
	}
	if r.query.Firmware == None || r.relay.IsValid() && c.subnetOf(r.relay) == nil {
		return
	}
	m := c.newReply(r, kind)
	m.ServerIPAddr = c.cfg.Server.AsSlice()
	c.setBoot(m, r, machine, true)
	if _, ok := m.Options[optBootfile.Code()]; !ok {
		return
	}
	if r.Port == portPXE {
		m.ClientIPAddr = r.Message.ClientIPAddr
		c.out.Reply = &Reply{Message: m, To: r.From, fromPXE: true}
		return
	}
	c.out.Reply = r.address(m)
}
