package api

import (
	"time"

	"ssi/internal/id"
)

// The methods of the table of machines (OpenSSI's clustertab). Anyone may list
// it; the others are for root. Where a machine is named, its node number, its
// name or one of its MAC addresses will do.
const (
	MethodMachineList    = "ssi.machine.List"    // MachineListParams → MachineListReply
	MethodMachineAdd     = "ssi.machine.Add"     // MachineAddParams → MachineAddReply; root
	MethodMachineNext    = "ssi.machine.Next"    // MachineNextParams → MachineNext; root
	MethodMachineChange  = "ssi.machine.Change"  // MachineChangeParams → MachineReply; root
	MethodMachineRemove  = "ssi.machine.Remove"  // MachineRemoveParams → MachineRemoveReply; root
	MethodMachineApprove = "ssi.machine.Approve" // MachineApproveParams → MachineReply; root
	MethodMachineDeny    = "ssi.machine.Deny"    // MachineDenyParams → MachineReply; root
)

// MachineState is what a machine of the table does at the moment.
type MachineState string

// The states of a machine.
const (
	MachineKnown   MachineState = "known"   // it may boot, and does not at the moment
	MachineBooting MachineState = "booting" // it was sent a kernel lately
	MachineUp      MachineState = "up"      // its node is in the cluster
	MachinePending MachineState = "pending" // it asked, and waits for approval
	MachineDenied  MachineState = "denied"  // it is refused whenever it asks
)

// MachineSpec is what an operator says of a machine. What is empty is chosen:
// the lowest free number, the name nodeN.
type MachineSpec struct {
	MACs    []string `json:"macs,omitempty"` // the first one names it
	Node    id.Node  `json:"node,omitempty"`
	Name    string   `json:"name,omitempty"`
	Class   string   `json:"class,omitempty"`   // of its hardware: which modules it needs
	Arch    string   `json:"arch,omitempty"`    // amd64 or arm64; "" as it says when it boots
	Address string   `json:"address,omitempty"` // IPv4; "" one of the pool
	Boot    string   `json:"boot,omitempty"`    // see machine.Kinds; "" is auto
	Args    string   `json:"args,omitempty"`    // added to the command line of its kernel
	Line    int      `json:"line,omitempty"`    // of the list it stands in, for messages
}

// MachineInfo is all that the cluster knows of one machine.
type MachineInfo struct {
	MachineSpec
	State     MachineState `json:"state"`
	NodeState State        `json:"node_state,omitempty"` // of its node, when it has a number
	Since     time.Time    `json:"since,omitzero"`       // added, approved, denied, or asked first
	FirstSeen time.Time    `json:"first_seen,omitzero"`
	LastSeen  time.Time    `json:"last_seen,omitzero"`

	// Its last boot: when it began, the address it had, the phase it reached,
	// since when, and what it says about it: for example why it waits.
	Booted     time.Time `json:"booted,omitzero"`
	IP         string    `json:"ip,omitempty"`
	Phase      string    `json:"phase,omitempty"`
	PhaseSince time.Time `json:"phase_since,omitzero"`
	Text       string    `json:"text,omitempty"`
	Alarm      string    `json:"alarm,omitempty"` // another machine asked in its name, in this boot
}

// MachineListParams asks for the table.
type MachineListParams struct{}

// MachineListReply is the table: by node number, then those without one.
type MachineListReply struct {
	Machines []MachineInfo `json:"machines"`
	Next     *MachineNext  `json:"next,omitempty"` // unknown machines are added at the moment
}

// MachineNext says how many unknown machines that ask are still added, and until
// when.
type MachineNext struct {
	Left  int       `json:"left"`
	Until time.Time `json:"until"`
}

// MachineAddParams adds machines, all or none.
type MachineAddParams struct {
	Specs []MachineSpec `json:"specs"`
}

// MachineAddReply is what was added.
type MachineAddReply struct {
	Machines []MachineInfo `json:"machines"`
}

// MaxMachineWindow is how long unknown machines may be added.
const MaxMachineWindow = 24 * time.Hour

// MachineNextParams has the next Count unknown machines that ask added; Count 0
// ends it. Spec is what they are to be; it has no MAC, number, name or address.
type MachineNextParams struct {
	Count int           `json:"count"`
	For   time.Duration `json:"for_ns"` // at most MaxMachineWindow
	Spec  MachineSpec   `json:"spec"`
}

// MachineChange is what is to be changed; nil stays as it is, "" is the default.
type MachineChange struct {
	MACs    []string `json:"macs,omitempty"`
	Node    *id.Node `json:"node,omitempty"`
	Name    *string  `json:"name,omitempty"`
	Class   *string  `json:"class,omitempty"`
	Arch    *string  `json:"arch,omitempty"`
	Address *string  `json:"address,omitempty"`
	Boot    *string  `json:"boot,omitempty"`
	Args    *string  `json:"args,omitempty"`
}

// MachineChangeParams changes a machine.
type MachineChangeParams struct {
	Machine string        `json:"machine"`
	Change  MachineChange `json:"change"`
}

// MachineReply is the machine as it is now.
type MachineReply struct {
	Machine MachineInfo `json:"machine"`
}

// MachineRemoveParams removes a machine and revokes its certificates.
type MachineRemoveParams struct {
	Machine string `json:"machine"`
	Force   bool   `json:"force,omitempty"` // also while its node is in the cluster
	Cause   string `json:"cause,omitempty"`
}

// MachineRemoveReply is the machine that was removed.
type MachineRemoveReply struct {
	Machine MachineInfo `json:"machine"`
	Revoked bool        `json:"revoked"` // it had certificates
}

// MachineApproveParams lets a machine in that waits or was denied.
type MachineApproveParams struct {
	Machine string        `json:"machine"`
	Change  MachineChange `json:"change"`
}

// MachineDenyParams refuses a machine that waits, or one that never asked, by
// its MAC.
type MachineDenyParams struct {
	Machine string `json:"machine"`
}
