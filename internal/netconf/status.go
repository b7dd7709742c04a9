package netconf

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ssi/internal/config"
)

// States of an interface.
const (
	StateUp        = "up"
	StateDown      = "down"
	StateNoCarrier = "no carrier"
	StateMissing   = "missing"
)

// Status is how an interface is, for people.
type Status struct {
	Name         string
	MAC          string // permanent
	State        string // up, down, no carrier, missing
	Addrs        []netip.Prefix
	Members      []string   // of a bond; those without a carrier end in "!"
	Server       netip.Addr // of its lease; invalid without
	Interconnect bool
	Why          string    // why it is not as configured; "" when it is
	Since        time.Time // of Why
}

// String is the interface in one line:
// "eth0: no carrier: no carrier, is the cable in? (for 5 s)".
func (s Status) String() string { return s.at(time.Now()) }

func (s Status) at(now time.Time) string {
	parts := []string{s.Name + ": " + s.State}
	for _, a := range s.Addrs {
		parts = append(parts, a.String())
	}
	if len(s.Members) > 0 {
		parts = append(parts, "of "+strings.Join(s.Members, " "))
	}
	line := strings.Join(parts, ", ")
	if s.Why != "" {
		line += fmt.Sprintf(": %s (for %d s)", s.Why, int(max(now.Sub(s.Since), 0).Seconds()))
	}
	return line
}

// Interconnect is an interface over which the nodes talk.
type Interconnect struct {
	Name    string
	Addr    netip.Addr // to listen on and be reached at; invalid while there is none
	Carrier bool
	Why     string // why it is not ready
}

// Ready reports whether the nodes can talk over it.
func (i Interconnect) Ready() bool { return i.Addr.IsValid() && i.Carrier }

// kind of what an interface waits for: as long as it stays the same, the time
// of waiting goes on.
type kind int

const (
	nothing kind = iota
	forLink
	forOperation
	forCarrier
	forAddress
	forOther
)

type waiting struct {
	kind  kind
	why   string
	since time.Time
}

// follow notes what each interface waits for. m.mu is held.
func (m *Manager) follow(now time.Time) {
	next := map[string]waiting{}
	for _, b := range m.all() {
		k, why := m.why(b)
		if k == nothing {
			continue
		}
		w := waiting{kind: k, why: why, since: now}
		if before := m.since[b.Label+" "+b.Link]; before.kind == k {
			w.since = before.since
		}
		next[b.Label+" "+b.Link] = w
	}
	m.since = next
}

// all are the interfaces to tell of: those configured and the interconnects.
// m.mu is held.
func (m *Manager) all() []Binding {
	out := slices.Clone(m.plan.Bound)
	for _, n := range m.o.Interfaces {
		if !slices.ContainsFunc(out, func(b Binding) bool { return b.Label == n.Label() }) {
			out = append(out, Binding{Label: n.Label()})
		}
	}
	for _, name := range m.o.Interconnects {
		if !slices.ContainsFunc(out, func(b Binding) bool { return m.is(b, name) }) {
			b := Binding{Label: name}
			for _, l := range m.state.Links {
				if l.Name == name || l.hardware() && strings.EqualFold(l.MAC, name) {
					b.Link = l.Name
				}
			}
			out = append(out, b)
		}
	}
	return out
}

// is reports whether a name or MAC address of an interconnect means b.
func (m *Manager) is(b Binding, name string) bool {
	l := m.state.link(b.Link)
	return b.Label == name || b.Link == name || l != nil && l.hardware() && strings.EqualFold(l.MAC, name)
}

// why says what an interface waits for. m.mu is held.
func (m *Manager) why(b Binding) (kind, string) {
	l := m.state.link(b.Link)
	wait := m.plan.Waits[b.Label]
	switch {
	case l == nil && wait != "":
		return forLink, wait
	case l == nil && m.failed[b.Link] != "":
		return forOperation, m.failed[b.Link]
	case l == nil:
		return forLink, "there is no interface " + b.Label
	case m.failed[l.Name] != "":
		return forOperation, m.failed[l.Name]
	case l.Up && !l.Carrier:
		return forCarrier, m.whyNoCarrier(l)
	case m.asked[l.Name] != "":
		return forAddress, m.asked[l.Name]
	case m.clients[l.Name] != nil && !m.leases[l.Name].Valid():
		return forAddress, "asking for an address by DHCP"
	case wait != "":
		return forOther, wait
	case m.interconnect(b) && !firstAddr(l).IsValid():
		return forAddress, "it is an interconnect and has no address"
	}
	return nothing, ""
}

func (m *Manager) whyNoCarrier(l *Link) string {
	if l.Kind == "bond" {
		return "no member has a carrier, are the cables in?"
	}
	if l.Kind == "vlan" {
		return l.Parent + ", which carries it, has no carrier"
	}
	return "no carrier, is the cable in?"
}

func (m *Manager) interconnect(b Binding) bool {
	return slices.ContainsFunc(m.o.Interconnects, func(name string) bool { return m.is(b, name) })
}

// Status tells of every configured interface and every interconnect.
func (m *Manager) Status() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Status
	for _, b := range m.all() {
		w := m.since[b.Label+" "+b.Link]
		s := Status{Name: b.Label, State: StateMissing, Interconnect: m.interconnect(b), Why: w.why, Since: w.since}
		if l := m.state.link(b.Link); l != nil {
			s.Name, s.MAC, s.State = l.Name, l.MAC, stateOf(l)
			for _, a := range l.Addrs {
				if !a.Prefix.Addr().IsLinkLocalUnicast() {
					s.Addrs = append(s.Addrs, a.Prefix)
				}
			}
			s.Server = m.leases[l.Name].Server
			s.Members = m.membersOf(l.Name)
		}
		out = append(out, s)
	}
	return out
}

func stateOf(l *Link) string {
	switch {
	case !l.Up:
		return StateDown
	case !l.Carrier:
		return StateNoCarrier
	}
	return StateUp
}

func (m *Manager) membersOf(bond string) []string {
	var out []string
	for _, l := range m.state.Links {
		if l.Master == bond && l.Carrier {
			out = append(out, l.Name)
		} else if l.Master == bond {
			out = append(out, l.Name+"!")
		}
	}
	return out
}

// Interconnects tells of the interconnects in their order, the preferred first.
func (m *Manager) Interconnects() []Interconnect {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Interconnect
	for _, name := range m.o.Interconnects {
		i := Interconnect{Name: name}
		for _, b := range m.all() {
			if !m.is(b, name) {
				continue
			}
			i.Why = m.since[b.Label+" "+b.Link].why
			if l := m.state.link(b.Link); l != nil {
				i.Name, i.Addr, i.Carrier = l.Name, firstAddr(l), l.Up && l.Carrier
			}
			break
		}
		out = append(out, i)
	}
	return out
}

// firstAddr is the address of a link that others can reach: IPv4 if it has one.
func firstAddr(l *Link) netip.Addr {
	var six netip.Addr
	for _, a := range l.Addrs {
		switch ip := a.Prefix.Addr(); {
		case ip.IsLinkLocalUnicast() || ip.IsLoopback():
		case ip.Is4():
			return ip
		case !six.IsValid():
			six = ip
		}
	}
	return six
}

// Changed returns a channel that is closed when there may be something new.
func (m *Manager) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// Wait waits until the nodes can talk: until one interconnect has an address and
// a carrier or, when no interconnect is configured, one interface has. Without any configuration it returns at once. The error
// says what every interface waits for, and wraps that of the context.
func (m *Manager) Wait(ctx context.Context) error {
	for {
		changed := m.Changed()
		if m.usable() {
			return nil
		}
		select {
		case <-ctx.Done():
			return m.unusable(ctx.Err())
		case <-changed:
		}
	}
}

func (m *Manager) usable() bool {
	if len(m.o.Interconnects) > 0 {
		return slices.ContainsFunc(m.Interconnects(), Interconnect.Ready)
	}
	addressed := func(n config.Interface) bool { return len(n.Prefixes()) > 0 || n.DHCP() }
	if !slices.ContainsFunc(m.o.Interfaces, addressed) {
		return true
	}
	return slices.ContainsFunc(m.Status(), func(s Status) bool { return s.State == StateUp && len(s.Addrs) > 0 })
}

func (m *Manager) unusable(cause error) error {
	var texts []string
	for _, s := range m.Status() {
		if s.Why != "" {
			texts = append(texts, s.String())
		}
	}
	return fmt.Errorf("the network is not ready: %s: %w", strings.Join(texts, "; "), cause)
}
