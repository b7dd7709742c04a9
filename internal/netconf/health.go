package netconf

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// MaxHealth is how many links are told of at most.
const MaxHealth = 64

// Health is how a link is doing, with what the kernel counted since the link is
// there.
type Health struct {
	Name    string
	Kind    string // bond, vlan, veth, ...; "" is hardware
	MAC     string // permanent
	State   string // up, down, no carrier, missing
	Addrs   []netip.Prefix
	Speed   int    // Mbit/s; 0: not known
	Errors  uint64 // frames that were received or sent with an error
	Dropped uint64 // frames for which there was no place
	Losses  uint64 // how often the carrier was lost
	Master  string // the bond that it is a member of
	Mode    string // of a bond
	Active  string // of a bond: the member that works, where one does
}

// Wanted says which links to tell of.
type Wanted struct {
	Names []string     // names or MAC addresses; those that no link has are missing
	Addrs []netip.Addr // links that have one of them
}

// Look tells how the links are that are wanted, the members of bonds among them
// and what carries VLANs, in the order of the kernel; missing ones last. It
// changes nothing, and works where another program configures the network.
func Look(w Wanted) ([]Health, error) {
	k, err := openKernel(nil)
	if err != nil {
		return nil, err
	}
	defer k.close()
	return k.look(w)
}

func (k *kernel) look(w Wanted) ([]Health, error) {
	state, err := k.state()
	if err != nil {
		return nil, err
	}
	names, missing := w.choose(state)
	var out []Health
	for _, l := range state.Links {
		if slices.Contains(names, l.Name) && len(out) < MaxHealth {
			out = append(out, k.health(l))
		}
	}
	for _, name := range missing[:min(len(missing), MaxHealth-len(out))] {
		out = append(out, Health{Name: name, State: StateMissing})
	}
	return out, nil
}

// choose is the names of the links to tell of, and what is wanted and not there.
func (w Wanted) choose(s State) (names, missing []string) {
	add := func(l Link) {
		if !slices.Contains(names, l.Name) {
			names = append(names, l.Name)
		}
	}
	for _, name := range w.Names {
		i := slices.IndexFunc(s.Links, func(l Link) bool { return l.Name == name })
		if i < 0 {
			i = slices.IndexFunc(s.Links, func(l Link) bool { return l.hardware() && strings.EqualFold(l.MAC, name) })
		}
		if i < 0 {
			missing = append(missing, name)
			continue
		}
		add(s.Links[i])
	}
	for _, l := range s.Links {
		if slices.ContainsFunc(l.Addrs, func(a Addr) bool { return slices.Contains(w.Addrs, a.Prefix.Addr()) }) {
			add(l)
		}
	}
	for i := 0; i < len(names); i++ { // names grows meanwhile
		for _, l := range s.Links {
			if l.Name == s.link(names[i]).Parent || l.Master == names[i] && s.link(names[i]).Kind == "bond" {
				add(l)
			}
		}
	}
	return names, missing
}

// health adds to what the planner knows of a link what it need not know.
func (k *kernel) health(l Link) Health {
	h := Health{Name: l.Name, Kind: l.Kind, MAC: l.MAC, State: stateOf(&l)}
	for _, a := range l.Addrs {
		if !a.Prefix.Addr().IsLinkLocalUnicast() {
			h.Addrs = append(h.Addrs, a.Prefix)
		}
	}
	if n, err := strconv.Atoi(sysNet(l.Name, "speed")); err == nil {
		h.Speed = max(n, 0) // -1 is not known (SPEED_UNKNOWN)
	}
	h.Losses, _ = strconv.ParseUint(sysNet(l.Name, "carrier_down_count"), 10, 64) // 0 where it is not counted
	link, err := k.nl.LinkByIndex(l.Index)
	if err != nil {
		return h // it went away
	}
	if s := link.Attrs().Statistics; s != nil {
		h.Errors, h.Dropped = s.RxErrors+s.TxErrors, s.RxDropped+s.TxDropped
	}
	if _, member := link.Attrs().Slave.(*netlink.BondSlave); member {
		h.Master = l.Master
	}
	if b, ok := link.(*netlink.Bond); ok {
		h.Mode = b.Mode.String()
		if active, err := k.nl.LinkByIndex(b.ActiveSlave); err == nil {
			h.Active = active.Attrs().Name
		}
	}
	return h
}

// sysNet is an attribute of a link (kernel: Documentation/ABI/testing/sysfs-class-net),
// or "": a link without carrier has no speed, and the /sys of another network
// namespace does not have the link.
func sysNet(link, attribute string) string {
	b, err := os.ReadFile(filepath.Join("/sys/class/net", link, attribute))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
