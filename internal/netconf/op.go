package netconf

import (
	"fmt"
	"strings"
)

// Verb is what an operation does to its link.
type Verb string

// The operations.
const (
	Rename        Verb = "rename"         // to To; the link is down
	AddBond       Verb = "create bond"    // with Bond
	SetBond       Verb = "set bond"       // what is set in Bond
	AddVLAN       Verb = "create vlan"    // of the id Number on To
	Delete        Verb = "delete"         //
	Enslave       Verb = "join"           // the bond To; the link is down
	Release       Verb = "leave"          // the bond To
	SetMTU        Verb = "set mtu"        // Number
	Up            Verb = "up"             //
	Down          Verb = "down"           //
	AddAddress    Verb = "add address"    // Addr, or give it a new lifetime
	RemoveAddress Verb = "remove address" // Addr
	AddRoute      Verb = "add route"      // Route, or replace the one of its destination and metric
	RemoveRoute   Verb = "remove route"   // Route
)

// Op is one operation on a link.
type Op struct {
	Verb   Verb
	Link   string
	To     string
	Number int
	Bond   BondOptions
	Addr   Addr
	Route  Route
}

// String is the operation in one line: "eth0: add address 10.0.0.1/24".
func (op Op) String() string {
	s := op.Link + ": " + string(op.Verb)
	switch op.Verb {
	case Rename, Enslave, Release:
		s += " " + op.To
	case AddBond, SetBond:
		s += " " + op.Bond.String()
	case AddVLAN:
		s += fmt.Sprintf(" %d on %s", op.Number, op.To)
	case SetMTU:
		s += fmt.Sprintf(" %d", op.Number)
	case AddAddress, RemoveAddress:
		s += " " + op.Addr.Prefix.String()
		if op.Verb == AddAddress && op.Addr.Lifetime > 0 {
			s += fmt.Sprintf(" for %d s", op.Addr.Lifetime)
		}
	case AddRoute, RemoveRoute:
		s += " to " + op.Route.To.String()
		if op.Route.Via.IsValid() {
			s += " via " + op.Route.Via.String()
		}
	}
	return s
}

func (o BondOptions) String() string {
	var parts []string
	if o.Mode != "" {
		parts = append(parts, "mode "+o.Mode)
	}
	if o.Miimon != 0 {
		parts = append(parts, fmt.Sprintf("miimon %d", o.Miimon))
	}
	if o.LACPRate != "" {
		parts = append(parts, "lacp_rate "+o.LACPRate)
	}
	if o.Primary != "" {
		parts = append(parts, "primary "+o.Primary)
	}
	return strings.Join(parts, " ")
}
