package machine

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"ssi/cluster/registry"
	"ssi/internal/id"
)

// The keys of the registry. Only the daemons write below /sys.
const (
	keyTable    = "/sys/netboot/table"   // written with every edit of the table
	keyNext     = "/sys/netboot/next"    // Next
	keyMachines = "/sys/netboot/machine" // …/MAC: Machine
	keyBoots    = "/sys/netboot/boot"    // …/MAC: Boot
)

func keyMachine(m MAC) string { return keyMachines + "/" + m.String() }
func keyBoot(m MAC) string    { return keyBoots + "/" + m.String() }

// Standing is what the operators decided about a machine.
type Standing string

// The standings.
const (
	Known   Standing = "known"
	Pending Standing = "pending" // nothing yet: it asked
	Denied  Standing = "denied"
)

// Machine is one machine of the table. It is not changed once it is in a Book.
type Machine struct {
	MACs     []MAC      `json:"macs"` // the first one names it
	Node     id.Node    `json:"node,omitempty"`
	Name     string     `json:"name,omitempty"`
	Class    string     `json:"class,omitempty"`
	Arch     string     `json:"arch,omitempty"`
	Address  netip.Addr `json:"address,omitzero"`
	Boot     Kind       `json:"boot,omitempty"`
	Args     string     `json:"args,omitempty"`
	Standing Standing   `json:"standing"`
	Since    time.Time  `json:"since,omitzero"` // of the standing
	First    time.Time  `json:"first,omitzero"` // it was heard of first
	Asked    time.Time  `json:"asked,omitzero"` // it was heard of last, while nobody knew it
}

// ID is the MAC that names the machine.
func (m *Machine) ID() MAC { return m.MACs[0] }

// Boot is the last time a machine was started, as the cluster saw it.
type Boot struct {
	At      time.Time  `json:"at,omitzero"` // our servers sent it a loader or a kernel
	IP      netip.Addr `json:"ip,omitzero"` // leased to it
	Phase   string     `json:"phase,omitempty"`
	PhaseAt time.Time  `json:"phase_at,omitzero"`
	Text    string     `json:"text,omitempty"`
	Alarm   string     `json:"alarm,omitempty"`

	Key     []byte    `json:"key,omitempty"`     // the public key that asked first
	ID      string    `json:"id,omitempty"`      // the kernel's boot ID that came with it
	First   time.Time `json:"first,omitzero"`    // credential of this boot
	Sealed  []byte    `json:"sealed,omitempty"`  // the last one, for Key: no secret
	Expires time.Time `json:"expires,omitzero"`  // of its token
	Granted id.Node   `json:"granted,omitempty"` // the number it is for
}

// Next is how many unknown machines that ask are added.
type Next struct {
	Left  int       `json:"left"`
	Until time.Time `json:"until"`
	Spec  Machine   `json:"spec"` // what they are to be
}

// open reports whether an unknown machine would be added now.
func (n *Next) open(now time.Time) bool { return n.Left > 0 && now.Before(n.Until) }

// decode reads a record of the registry; a newer version of ssi may have put
// more into it.
func decode(e *registry.Entry, v any) error {
	if err := json.Unmarshal(e.Value, v); err != nil {
		return fmt.Errorf("registry key %s is damaged: %w", e.Key, err)
	}
	return nil
}

func decodeMachine(e *registry.Entry) (*Machine, error) {
	m := new(Machine)
	if err := decode(e, m); err != nil {
		return nil, err
	}
	if len(m.MACs) == 0 || e.Key != keyMachine(m.ID()) {
		return nil, fmt.Errorf("registry key %s is damaged: it is of another machine", e.Key)
	}
	return m, nil
}

// readBoot is the last boot of a machine and the revision of its record; both
// are zero if it has none.
func readBoot(view registry.View, m MAC) (Boot, uint64, error) {
	var b Boot
	e, err := view.Get(keyBoot(m))
	if err != nil {
		return b, 0, nil //nolint:nilerr // there is none: the key is valid
	}
	return b, e.Mod, decode(e, &b)
}

// encode is the value of a record. Its types cannot fail.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("machine: a record cannot be encoded: " + err.Error()) // no input reaches this
	}
	return b
}
