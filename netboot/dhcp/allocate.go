package dhcp

import (
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// discover offers an address.
func (c *Core) discover(now time.Time, r *Request, s *subnet, machine Machine) {
	a, ok := c.choose(r, s, machine)
	if !ok {
		kind := RangeFull
		if machine.State != Boot {
			kind = GuestsFull
		}
		c.event(Event{Kind: kind, MAC: r.mac})
		return
	}
	hold := offerTime
	if machine.State != Boot {
		hold = guestOfferTime
	}
	e := c.table.byMAC[r.mac]
	if e != nil && e.lease.Addr != a {
		c.drop(e)
		e = nil
	}
	switch {
	case e == nil:
		c.table.add(&entry{lease: Lease{Addr: a, MAC: r.mac}, offered: true, until: now.Add(hold)})
	case e.offered:
		c.table.extend(e, now.Add(hold))
	}
	m := c.newReply(r, dhcpv4.MessageTypeOffer)
	m.YourIPAddr = a.AsSlice()
	setTimes(m, c.leaseTime(machine))
	c.configure(m, r, &s.Subnet, machine)
	c.out.Reply = r.address(m)
}

func (c *Core) leaseTime(machine Machine) time.Duration {
	if machine.State == Boot {
		return c.cfg.LeaseTime
	}
	return c.cfg.GuestTime
}

// choose returns the address for a machine: its fixed one, the one it has, the one
// it wants, any one.
func (c *Core) choose(r *Request, s *subnet, machine Machine) (netip.Addr, bool) {
	part := s.guests
	if machine.State == Boot {
		part = s.machines
		if c.fixed(s, machine) {
			if c.available(machine.Addr, r.mac) {
				return machine.Addr, true
			}
			c.event(Event{Kind: FixedTaken, Addr: machine.Addr, MAC: r.mac})
		}
	}
	may := func(a netip.Addr) bool {
		return part.Contains(a) && s.usable(a, c.cfg.Server) && c.available(a, r.mac) && !c.owned(a, r.mac)
	}
	if e := c.table.byMAC[r.mac]; e != nil && may(e.lease.Addr) {
		return e.lease.Addr, true
	}
	if r.wanted.IsValid() && may(r.wanted) {
		return r.wanted, true
	}
	return part.pick(may)
}

// fixed reports whether the machine has a fixed address in the subnet.
func (c *Core) fixed(s *subnet, machine Machine) bool {
	return machine.State == Boot && machine.Addr.Is4() && s.usable(machine.Addr, c.cfg.Server)
}

// available reports whether nobody else has the address, and nobody declined it.
func (c *Core) available(a netip.Addr, mac MAC) bool {
	e := c.table.byAddr[a]
	return e == nil || e.lease.MAC == mac && !e.lease.Declined
}

// owned reports whether the address is the fixed one of another machine.
func (c *Core) owned(a netip.Addr, mac MAC) bool {
	owner, ok := c.cfg.Machines.Owner(a)
	return ok && owner != mac
}

// request gives an address, or says no: RFC 2131 section 4.3.2.
func (c *Core) request(now time.Time, r *Request, s *subnet, machine Machine) {
	a := r.wanted
	starts := true // the machine does not use the address yet
	switch {
	case r.server.IsValid():
		if r.server != c.cfg.Server {
			c.event(Event{Kind: OtherServer, Addr: r.server})
			if e := c.table.byMAC[r.mac]; e != nil && e.offered {
				c.drop(e)
			}
			return
		}
	case r.client.IsValid(): // RENEWING, REBINDING
		a, starts = r.client, false
	}
	if !a.IsValid() {
		return
	}
	if !c.grants(a, r.mac, s, machine, starts) {
		m := c.newReply(r, dhcpv4.MessageTypeNak)
		m.SetBroadcast() // for the relay
		c.out.Reply = r.address(m)
		return
	}
	e := c.table.byMAC[r.mac]
	if e != nil && e.lease.Addr != a {
		c.drop(e)
		e = nil
	}
	d := c.leaseTime(machine)
	l := Lease{Addr: a, MAC: r.mac, Expires: now.Add(d)}
	if e == nil {
		c.table.add(&entry{lease: l, until: l.Expires.Add(Grace)})
	} else {
		e.lease, e.offered = l, false
		c.table.extend(e, l.Expires.Add(Grace))
	}
	c.out.Changes = append(c.out.Changes, Change{Lease: l})
	m := c.newReply(r, dhcpv4.MessageTypeAck)
	m.YourIPAddr = a.AsSlice()
	if r.client.IsValid() {
		m.ClientIPAddr = r.client.AsSlice()
	}
	setTimes(m, d)
	c.configure(m, r, &s.Subnet, machine)
	c.out.Reply = r.address(m)
}

// grants reports whether a machine may have an address. One that runs keeps what it
// has, although it would get another one if it started now: to take the address
// of a running machine stops it.
func (c *Core) grants(a netip.Addr, mac MAC, s *subnet, machine Machine, starts bool) bool {
	if !s.usable(a, c.cfg.Server) || !c.available(a, mac) {
		return false
	}
	if machine.State != Boot {
		return s.guests.Contains(a) && !c.owned(a, mac)
	}
	fixed := c.fixed(s, machine)
	switch {
	case fixed && a == machine.Addr:
		return true
	case fixed && starts && c.available(machine.Addr, mac):
		return false
	}
	if e := c.table.byMAC[mac]; !starts && e != nil && e.lease.Addr == a {
		return true
	}
	return s.machines.Contains(a) && !c.owned(a, mac)
}

// ends reports whether the machine gives an address back.
func (r *Request) ends() bool {
	return r.kind == dhcpv4.MessageTypeRelease || r.kind == dhcpv4.MessageTypeDecline
}

// end takes an address back: only from the machine that has it, so that nobody
// declines the addresses of all.
func (c *Core) end(now time.Time, r *Request) {
	a := r.client
	if r.kind == dhcpv4.MessageTypeDecline {
		a = r.wanted
	}
	e := c.table.byMAC[r.mac]
	if e == nil || e.lease.Addr != a || r.server.IsValid() && r.server != c.cfg.Server {
		return
	}
	c.table.remove(e)
	if r.kind == dhcpv4.MessageTypeRelease {
		if !e.offered {
			c.out.Changes = append(c.out.Changes, Change{Lease: e.lease, Delete: true})
		}
		return
	}
	l := Lease{Addr: a, MAC: r.mac, Declined: true, Expires: now.Add(Quarantine)}
	c.table.add(&entry{lease: l, until: l.Expires})
	c.out.Changes = append(c.out.Changes, Change{Lease: l})
	c.event(Event{Kind: Declined, Addr: a, MAC: r.mac})
}
