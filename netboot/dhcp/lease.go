package dhcp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Lease is an address that is not free.
type Lease struct {
	Addr     netip.Addr // the key: a store has one lease for each
	MAC      MAC        // who has it; of a declined address: who declined it
	Declined bool       // somebody uses the address without a lease
	Expires  time.Time  // as told to the machine
}

// Change is a change of a lease.
type Change struct {
	Lease  Lease
	Delete bool // Lease.Addr is free again; the rest says who had it
}

// Store keeps the leases of the cluster.
type Store interface {
	// Load returns all leases.
	Load(context.Context) ([]Lease, error)
	// Commit carries out the changes in their order, all or none, and returns nil
	// when they will survive the death of this machine. It must fail if another
	// machine may have begun to serve since this one has loaded the leases.
	Commit(context.Context, []Change) error
}

// maxLeaseText is above the length of every lease as text.
const maxLeaseText = 128

// MarshalText writes a lease as "10.0.0.9 52:54:00:77:00:02 bound 2026-01-02T15:04:05Z".
func (l Lease) MarshalText() ([]byte, error) {
	state := "bound"
	if l.Declined {
		state = "declined"
	}
	return fmt.Appendf(nil, "%v %v %s %s", l.Addr, l.MAC, state, l.Expires.UTC().Format(time.RFC3339Nano)), nil
}

// UnmarshalText reads what MarshalText wrote.
func (l *Lease) UnmarshalText(b []byte) error {
	parsed, err := parseLease(b)
	if err != nil {
		return fmt.Errorf("lease %.60q: %w", b, err)
	}
	*l = parsed
	return nil
}

func parseLease(b []byte) (l Lease, err error) {
	if len(b) > maxLeaseText {
		return l, errors.New("too long")
	}
	f := strings.Split(string(b), " ")
	if len(f) != 4 {
		return l, errors.New("not address, MAC, state and time")
	}
	if l.Addr, err = netip.ParseAddr(f[0]); err != nil {
		return l, err
	}
	if !l.Addr.Is4() || l.Addr.IsUnspecified() {
		return l, errors.New("not the IPv4 address of a machine")
	}
	if l.MAC, err = ParseMAC(f[1]); err != nil {
		return l, err
	}
	switch f[2] {
	case "bound":
	case "declined":
		l.Declined = true
	default:
		return l, errors.New("unknown state")
	}
	if l.Expires, err = time.Parse(time.RFC3339Nano, f[3]); err != nil {
		return l, err
	}
	// Without its zone a time at the edge may have a year that cannot be written.
	if year := l.Expires.UTC().Year(); year < 1 || year > 9999 {
		return l, errors.New("year out of range")
	}
	return l, nil
}
