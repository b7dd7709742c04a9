package dhcp

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

const (
	// MaxPools is how many subnets are served.
	MaxPools = 16
	// MaxPool is how many addresses a range of a pool has.
	MaxPool = 1 << 16

	// MinLease is the shortest lease time.
	MinLease = time.Minute
	// MaxLease is the longest.
	MaxLease = 30 * 24 * time.Hour
	// Grace is how much longer than told a lease is kept.
	Grace = time.Minute
	// Quarantine is how long a declined address rests.
	Quarantine = 10 * time.Minute

	// offerTime and guestOfferTime are how long an offer holds the address. A PXE
	// ROM collects offers for up to 8 s before it accepts one. Who accepts later
	// still gets the address if it is free.
	offerTime      = time.Minute
	guestOfferTime = 15 * time.Second

	maxServers  = 4 // DNS and NTP servers of a pool
	maxBootfile = 255
	maxFile     = 127 // the field of the header, with its final zero
	maxLabel    = 63
	maxDomain   = 253
)

// Mode says what the server does.
type Mode int

// The modes.
const (
	Pool  Mode = iota // gives addresses and says what to boot
	Proxy             // says what to boot, beside a server that gives addresses
)

// Config is what a server does. New checks it.
type Config struct {
	Mode      Mode
	Interface string        // where it serves
	Server    netip.Addr    // of this machine on Interface: server identifier, next server
	Subnets   []Subnet      // the one with Server is that of Interface, others come through relays; in mode Proxy only relays of these are answered
	Loaders   Loaders       // what is booted
	LeaseTime time.Duration // MinLease to MaxLease; 0 is an hour
	GuestTime time.Duration // lease time of machines that may not boot; 0 is five minutes
	GuestRate int           // requests of such machines answered in a second, 1 to 10000; 0 is 50
	Search    time.Duration // from one search for other servers to the next, at least 10 s; 0 is three minutes; of mode Pool

	Machines Machines
	Store    Store       // of mode Pool
	Report   func(Event) // must not block; nil drops the events
}

// Subnet is a subnet that is served. It and its addresses are IPv4.
type Subnet struct {
	Prefix netip.Prefix
	Range  Range        // for machines that may boot
	Guests Range        // for others; the zero Range leaves them without an answer
	Router netip.Addr   // the zero Addr gives none
	DNS    []netip.Addr // at most 4
	NTP    []netip.Addr // at most 4
	Domain string       // at most 253 bytes
}

// Range is the addresses from First to Last.
type Range struct{ First, Last netip.Addr }

// Contains reports whether the range has the address.
func (r Range) Contains(a netip.Addr) bool {
	return r.First.IsValid() && r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0
}

// size is how many addresses the range has.
func (r Range) size() int {
	if !r.First.IsValid() {
		return 0
	}
	return int(number(r.Last)) - int(number(r.First)) + 1
}

// Loaders are the files that are booted: names for TFTP, or http URLs, at most 255
// bytes (those for firmware with PXE: 127). "" boots nothing.
type Loaders struct {
	IPXE     string // URL of a script
	BIOS     string // undionly.kpxe, or pxelinux.0
	EFI32    string // snponly.efi, or a unified kernel image
	EFI64    string
	EFIARM64 string
	// UEFI HTTP boot: URLs.
	HTTP32    string
	HTTP64    string
	HTTPARM64 string
}

// of is the file for a firmware.
func (l Loaders) of(f Firmware) string {
	switch f {
	case IPXE:
		return l.IPXE
	case BIOS:
		return l.BIOS
	case EFI32:
		return l.EFI32
	case EFI64:
		return l.EFI64
	case EFIARM64:
		return l.EFIARM64
	case HTTP32:
		return l.HTTP32
	case HTTP64:
		return l.HTTP64
	case HTTPARM64:
		return l.HTTPARM64
	}
	return ""
}

// checked returns the configuration with its defaults, or what is wrong with it.
func (c Config) checked() (Config, error) {
	setDefault(&c.LeaseTime, time.Hour)
	setDefault(&c.GuestTime, 5*time.Minute)
	setDefault(&c.Search, 3*time.Minute)
	setDefault(&c.GuestRate, 50)
	for _, check := range []struct {
		ok   bool
		text string
	}{
		{c.Mode == Pool || c.Mode == Proxy, "unknown mode"},
		{c.Server.Is4() && !c.Server.IsUnspecified(), fmt.Sprintf("server address %v: give the IPv4 address of this machine on the interface", c.Server)},
		{between(c.LeaseTime, MinLease, MaxLease), fmt.Sprintf("lease time %v: allowed is %v to %v", c.LeaseTime, MinLease, MaxLease)},
		{between(c.GuestTime, MinLease, MaxLease), fmt.Sprintf("lease time of guests %v: allowed is %v to %v", c.GuestTime, MinLease, MaxLease)},
		{c.GuestRate >= 1 && c.GuestRate <= 10000, fmt.Sprintf("rate of guests %d: allowed is 1 to 10000 a second", c.GuestRate)},
		{c.Search >= 10*time.Second, fmt.Sprintf("time between searches %v: allowed is 10s or more", c.Search)},
		{c.Machines != nil, "nobody to ask about machines"},
		{c.Mode == Proxy || c.Store != nil, "no store for leases"},
		{c.Mode == Proxy || len(c.Subnets) > 0, "no subnet: name one, or choose the mode proxy"},
		{len(c.Subnets) <= MaxPools, fmt.Sprintf("%d subnets: at most %d", len(c.Subnets), MaxPools)},
	} {
		if !check.ok {
			return c, errors.New("dhcp: " + check.text)
		}
	}
	if err := c.Loaders.check(); err != nil {
		return c, fmt.Errorf("dhcp: %w", err)
	}
	for i, s := range c.Subnets {
		if err := s.check(); err != nil {
			return c, fmt.Errorf("dhcp: subnet %v: %w", s.Prefix, err)
		}
		for _, other := range c.Subnets[:i] {
			if s.Prefix.Overlaps(other.Prefix) {
				return c, fmt.Errorf("dhcp: subnets %v and %v overlap", other.Prefix, s.Prefix)
			}
		}
	}
	return c, nil
}

func setDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

func between(d, low, high time.Duration) bool { return low <= d && d <= high }

func (l Loaders) check() error {
	for f := IPXE; f <= HTTPARM64; f++ {
		file := l.of(f)
		if err := checkBootfile(f, file); err != nil {
			return err
		}
	}
	return nil
}

// checkBootfile says what is wrong with a file for a firmware.
func checkBootfile(f Firmware, file string) error {
	limit := maxBootfile
	if f != IPXE && !f.http() {
		limit = maxFile // the ROM reads the field of the header
	}
	switch {
	case len(file) > limit:
		return fmt.Errorf("boot file for %v has %d bytes, at most %d are allowed", f, len(file), limit)
	case strings.ContainsFunc(file, func(r rune) bool { return r <= ' ' || r > '~' }):
		return fmt.Errorf("boot file for %v, %q: only printable ASCII without spaces is allowed", f, file)
	case f.http() && file != "" && !strings.HasPrefix(file, "http://"):
		return fmt.Errorf("boot file for %v, %q: give a URL that begins with http://", f, file)
	}
	return nil
}

func (s Subnet) check() error {
	if !s.Prefix.IsValid() || !s.Prefix.Addr().Is4() || s.Prefix != s.Prefix.Masked() || s.Prefix.Bits() < 8 || s.Prefix.Bits() > 30 {
		return errors.New("give an IPv4 network as 10.0.0.0/24, with 8 to 30 bits")
	}
	for _, r := range []struct {
		name string
		r    Range
	}{{"range", s.Range}, {"range of guests", s.Guests}} {
		switch {
		case r.r == Range{}:
		case !s.Prefix.Contains(r.r.First) || !s.Prefix.Contains(r.r.Last):
			return fmt.Errorf("%s %v-%v is not in the subnet", r.name, r.r.First, r.r.Last)
		case r.r.size() < 1:
			return fmt.Errorf("%s %v-%v: the first address is above the last", r.name, r.r.First, r.r.Last)
		case r.r.size() > MaxPool:
			return fmt.Errorf("%s %v-%v has %d addresses, at most %d are allowed", r.name, r.r.First, r.r.Last, r.r.size(), MaxPool)
		}
	}
	if s.Range != (Range{}) && s.Guests != (Range{}) && s.Range.First.Compare(s.Guests.Last) <= 0 && s.Guests.First.Compare(s.Range.Last) <= 0 {
		return errors.New("the range and the range of guests overlap")
	}
	if s.Router.IsValid() && !s.Prefix.Contains(s.Router) {
		return fmt.Errorf("router %v is not in the subnet", s.Router)
	}
	for _, list := range [][]netip.Addr{s.DNS, s.NTP} {
		if len(list) > maxServers {
			return fmt.Errorf("%d servers of a kind: at most %d are allowed", len(list), maxServers)
		}
		for _, a := range list {
			if !a.Is4() {
				return fmt.Errorf("server %v: only IPv4 is allowed", a)
			}
		}
	}
	if len(s.Domain) > maxDomain || strings.ContainsFunc(s.Domain, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("domain %q: give a DNS name", s.Domain)
	}
	return nil
}

// usable reports whether a machine of the subnet may have the address at all.
func (s *Subnet) usable(a, server netip.Addr) bool {
	return s.Prefix.Contains(a) && a != s.Prefix.Addr() && a != s.broadcast() && a != server && a != s.Router
}

// broadcast is the last address of the subnet.
func (s *Subnet) broadcast() netip.Addr {
	return address(number(s.Prefix.Addr()) | 1<<(32-s.Prefix.Bits()) - 1)
}
