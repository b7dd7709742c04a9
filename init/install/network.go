package install

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"ssi/internal/config"
)

// Network is how the network of a running machine is.
type Network struct {
	Links []Link       // in the order of the kernel
	DNS   []netip.Addr // name servers, at most config.MaxDNS
}

// Link is a network interface that is up.
type Link struct {
	Name     string
	Kind     string // bond, vlan, bridge, …; "" is hardware (rtnetlink(7), IFLA_INFO_KIND)
	MAC      string // of hardware: the permanent one
	Wireless bool
	MTU      int
	Master   string // the bond or bridge it is a member of
	Parent   string // of a VLAN
	VLAN     int
	Bond     config.Bond    // without members
	Addrs    []netip.Prefix // those without an end that others can reach
	DHCP     bool           // it has an IPv4 address with an end: a server lent it
	Routes   []Route        // what an administrator or a DHCP client has set
}

// Route is a route over a link.
type Route struct {
	To     netip.Prefix
	Via    netip.Addr // invalid: directly on the link
	Metric int        // the lowest wins
}

const usualMTU = 1500

// defaultMetric is the metric of the IPv4 default route over the link.
func (l Link) defaultMetric() (metric int, ok bool) {
	for _, r := range l.Routes {
		if r.To.Bits() == 0 && r.To.Addr().Is4() && (!ok || r.Metric < metric) {
			metric, ok = r.Metric, true
		}
	}
	return metric, ok
}

// used reports whether the link has something to configure.
func (l Link) used() bool { return len(l.Addrs) > 0 || l.DHCP }

// rank sorts links: what others are made of comes first, as internal/config wants
// it, then the one whose default route wins.
func (l Link) rank() (kind, metric int) {
	// -1 is what ssi does not make.
	kind = slices.Index([]string{"", "bond", "vlan"}, l.Kind)
	metric, ok := l.defaultMetric()
	if !ok {
		metric = 1 << 32
	}
	return kind, metric
}

func (n Network) link(name string) *Link {
	for i := range n.Links {
		if n.Links[i].Name == name {
			return &n.Links[i]
		}
	}
	return nil
}

// interconnect names the link with the address host; if host is none of ours, the one
// with the default route, or the only one that ssi configures; "" is none.
func (n Network) interconnect(host netip.Addr) string {
	best, least := "", 0
	var used []string
	for _, l := range n.Links {
		if kind, _ := l.rank(); kind >= 0 && l.used() {
			used = append(used, l.Name)
		}
		for _, p := range l.Addrs {
			if p.Addr() == host {
				return l.Name
			}
		}
		if metric, ok := l.defaultMetric(); ok && (best == "" || metric < least) {
			best, least = l.Name, metric
		}
	}
	if best == "" && len(used) == 1 {
		return used[0]
	}
	return best
}

// tables are the [[interface]] that keep the network as it is, and notes about what
// ssi cannot configure. The nodes talk over the interface with the address host.
func (n Network) tables(host netip.Addr) (tables []config.Interface, notes []string) {
	wanted := map[string]bool{}
	for _, l := range n.Links {
		if why := n.unable(l); why != "" {
			notes = append(notes, fmt.Sprintf("%s, which has %s, is %s: ssi does not configure that, and it is missing once ssi is init", l.Name, l.has(), why))
			continue
		}
		if kind, _ := l.rank(); kind < 0 {
			continue
		}
		for up := &l; up != nil && l.used(); up = n.link(up.Parent) { // at most two: checked by unable
			wanted[up.Name] = true
		}
	}
	ic := n.interconnect(host)
	links := slices.Clone(n.Links)
	slices.SortStableFunc(links, func(a, b Link) int {
		ak, am := a.rank()
		bk, bm := b.rank()
		return cmp.Or(cmp.Compare(ak, bk), cmp.Compare(am, bm))
	})
	for _, l := range links {
		if wanted[l.Name] {
			tables = append(tables, n.table(l, l.Name == ic))
		}
	}
	return tables, notes
}

// unable says what a link in use is that ssi does not configure, or "".
func (n Network) unable(l Link) string {
	if !l.used() {
		return ""
	}
	switch l.Kind {
	case "":
		if l.Wireless {
			return "a wireless interface"
		}
		return ""
	case "bond":
		if l.Bond.Mode != config.ActiveBackup && l.Bond.Mode != config.LACP {
			return "a bond of the mode " + l.Bond.Mode
		}
		return ""
	case "vlan":
		if p := n.link(l.Parent); p == nil || p.Kind != "" && p.Kind != "bond" || p.Wireless {
			return "a VLAN on " + l.Parent
		}
		return ""
	}
	// The networks of containers and virtual machines are their programs' business.
	if _, ok := l.defaultMetric(); !ok && !slices.ContainsFunc(n.Links, func(m Link) bool { return m.Master == l.Name && m.Kind == "" }) {
		return ""
	}
	return "a " + l.Kind
}

// has says what addresses a link has.
func (l Link) has() string {
	var out []string
	if l.DHCP {
		out = append(out, "an address by DHCP")
	}
	for _, p := range l.Addrs {
		out = append(out, p.String())
	}
	return strings.Join(out, " and ")
}

// table is the [[interface]] of one link.
func (n Network) table(l Link, interconnect bool) config.Interface {
	t := config.Interface{Name: l.Name}
	switch l.Kind {
	case "":
		// udev, which gave it the name, does not run: it is found by its address.
		t.MAC = l.MAC
	case "bond":
		bond := l.Bond
		for _, m := range n.Links {
			if m.Master == l.Name {
				bond.Members = append(bond.Members, cmp.Or(m.MAC, m.Name))
				if m.Name == bond.Primary {
					bond.Primary = cmp.Or(m.MAC, m.Name)
				}
			}
		}
		if !slices.Contains(bond.Members, bond.Primary) {
			bond.Primary = ""
		}
		if bond.Miimon < 10 || bond.Miimon >= config.DefaultMiimon { // out of what ssi allows, or its own
			bond.Miimon = 0
		}
		t.Bond = &bond
	case "vlan":
		t.VLAN = &config.VLAN{ID: l.VLAN, Parent: l.Parent}
	}
	if l.DHCP {
		t.Address = append(t.Address, config.AddressDHCP)
	}
	for _, p := range l.Addrs {
		t.Address = append(t.Address, p.String())
	}
	if l.MTU != usualMTU {
		t.MTU = l.MTU
	}
	n.addRoutes(&t, l)
	if interconnect {
		t.Role = config.RoleInterconnect
	}
	return t
}

// addRoutes adds the routes that no DHCP server tells again.
func (n Network) addRoutes(t *config.Interface, l Link) {
	routes := slices.Clone(l.Routes)
	slices.SortStableFunc(routes, func(a, b Route) int { return cmp.Compare(a.Metric, b.Metric) })
	seen := map[netip.Prefix]bool{}
	for _, r := range routes {
		if l.DHCP && r.To.Addr().Is4() || seen[r.To] {
			continue
		}
		seen[r.To] = true
		reachable := slices.ContainsFunc(l.Addrs, func(p netip.Prefix) bool { return p.Contains(r.Via) && p.Addr() != r.Via })
		if r.To.Bits() == 0 && reachable && t.Gateway == "" && r.To.Addr().Is4() {
			t.Gateway = r.Via.String()
			continue
		}
		route := config.Route{To: r.To.String()}
		if r.Via.IsValid() {
			route.Via = r.Via.String()
		}
		t.Routes = append(t.Routes, route)
	}
	if t.Gateway == "" {
		return
	}
	for _, s := range n.DNS {
		t.DNS = append(t.DNS, s.String())
	}
}

// tomlOf writes tables as they stand in ssi.toml.
func tomlOf(tables []config.Interface) string {
	var b strings.Builder
	text := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s = %s\n", key, strconv.Quote(value))
		}
	}
	number := func(key string, value int) {
		if value != 0 {
			fmt.Fprintf(&b, "%s = %d\n", key, value)
		}
	}
	list := func(key string, values []string) {
		if len(values) == 0 {
			return
		}
		quoted := make([]string, len(values))
		for i, v := range values {
			quoted[i] = strconv.Quote(v)
		}
		fmt.Fprintf(&b, "%s = [%s]\n", key, strings.Join(quoted, ", "))
	}
	for _, t := range tables {
		b.WriteString("\n[[interface]]\n")
		text("name", t.Name)
		text("mac", t.MAC)
		list("address", t.Address)
		text("gateway", t.Gateway)
		list("dns", t.DNS)
		number("mtu", t.MTU)
		var routes []string
		for _, r := range t.Routes {
			via := ""
			if r.Via != "" {
				via = ", via = " + strconv.Quote(r.Via)
			}
			routes = append(routes, fmt.Sprintf("{to = %s%s}", strconv.Quote(r.To), via))
		}
		if len(routes) > 0 {
			fmt.Fprintf(&b, "routes = [%s]\n", strings.Join(routes, ", "))
		}
		text("role", t.Role)
		if v := t.VLAN; v != nil {
			fmt.Fprintf(&b, "vlan = {id = %d, parent = %s}\n", v.ID, strconv.Quote(v.Parent))
		}
		if bond := t.Bond; bond != nil {
			b.WriteString("[interface.bond]\n")
			text("mode", bond.Mode)
			list("members", bond.Members)
			number("miimon", bond.Miimon)
			text("primary", bond.Primary)
			text("lacp_rate", bond.LACPRate)
		}
	}
	return b.String()
}
