package api

import (
	"time"

	"ssi/internal/id"
)

// The methods of the cluster's life. Anyone may call those that only read;
// the others are for root.
const (
	MethodClusterStatus   = "ssi.cluster.Status"   // StatusParams → ClusterStatus
	MethodClusterHistory  = "ssi.cluster.History"  // HistoryParams → HistoryReply
	MethodClusterWatch    = "ssi.cluster.Watch"    // WatchParams → stream of ClusterEvent
	MethodClusterSetState = "ssi.cluster.SetState" // SetStateParams → SetStateReply; root
	MethodClusterShutdown = "ssi.cluster.Shutdown" // ShutdownParams → ShutdownReply; root
	MethodClusterToken    = "ssi.cluster.Token"    // TokenParams → TokenReply; root
	MethodClusterRevoke   = "ssi.cluster.Revoke"   // RevokeParams → RevokeReply; root
	MethodClusterForce    = "ssi.cluster.Force"    // ForceParams → ForceReply; root
	MethodClusterRejoin   = "ssi.cluster.Rejoin"   // RejoinParams → RejoinReply; root
)

// State is one of the eight states of a node, in OpenSSI's words.
type State string

// The states of a node.
const (
	NeverUp   State = "NEVERUP"  // the number was never used
	ComingUp  State = "COMINGUP" // joined, not ready for work yet
	Up        State = "UP"
	Shutdown  State = "SHUTDOWN"  // drained: takes no new work
	GoingDown State = "GOINGDOWN" // leaves in order
	KCleanup  State = "KCLEANUP"  // gone; the system's traces of it are removed
	UCleanup  State = "UCLEANUP"  // gone; the nodedown hooks run
	Down      State = "DOWN"
)

// States lists all states in the order of a node's life.
func States() []State {
	return []State{NeverUp, ComingUp, Up, Shutdown, GoingDown, KCleanup, UCleanup, Down}
}

// Role is what a node does for the consensus.
type Role string

// The roles of a node.
const (
	RoleVoter   Role = "voter"   // votes and keeps the log on disk
	RoleLearner Role = "learner" // catches up in order to become a voter
	RoleClient  Role = "client"  // follows the log
	RoleWitness Role = "witness" // votes only; runs nothing and is no node of the cluster
)

// NodeInfo is all that the cluster knows of one node.
type NodeInfo struct {
	Node    id.Node  `json:"node"`
	Name    string   `json:"name"`
	Addr    string   `json:"addr"`             // host:port of its internode communication
	Others  []string `json:"others,omitempty"` // more addresses of it, on other interconnects
	State   State    `json:"state"`
	Role    Role     `json:"role,omitempty"`
	Capable bool     `json:"capable"` // it may hold init
	Init    bool     `json:"init"`    // it holds init now
	Classes []string `json:"classes,omitempty"`

	Incarnation id.Incarnation `json:"incarnation,string,omitempty"`
	Transition  id.Epoch       `json:"transition"`      // number of its last transition
	Since       time.Time      `json:"since"`           // when that happened, by the clock of the init node
	Cause       string         `json:"cause,omitempty"` // why it happened
	Phase       string         `json:"phase,omitempty"` // what it is busy with, e.g. "catching up: 312 entries behind"

	// Load is Load.Value, as `loads` prints it: 100 means that every CPU is
	// busy; absent when not known.
	Load *int `json:"load,omitempty"`
	// ClockOffset is its wall clock minus that of the node that answers, in
	// nanoseconds; absent when not known.
	ClockOffset *time.Duration `json:"clock_offset_ns,omitempty"`
	// Machine is what it tells of its machine; absent when not known.
	Machine *MachineReport `json:"machine,omitempty"`
}

// StatusParams asks for the cluster as this node sees it.
type StatusParams struct {
	// Barrier first waits until this node has seen everything that was decided
	// before the call. Without it the answer comes at once, also without quorum.
	Barrier bool `json:"barrier,omitempty"`
	// Measure asks every node for its load, its clock and its machine; it takes as
	// long as the slowest answer, at most about a second.
	Measure bool `json:"measure,omitempty"`
}

// ClusterStatus is the cluster as one node sees it.
type ClusterStatus struct {
	Name     string  `json:"name"`
	ID       string  `json:"id"` // 128 random bits in hexadecimal
	Self     id.Node `json:"self"`
	Profile  string  `json:"profile"`   // timing: fast, lan, wan
	PIDShift int     `json:"pid_shift"` // bits of a PID that count within a node

	Transition id.Epoch `json:"transition"`          // number of the latest transition known here
	InitNode   id.Node  `json:"init_node,omitempty"` // 0 when there is none now
	InitTerm   uint64   `json:"init_term,omitempty"` // epoch of the init role

	Quorum bool `json:"quorum"` // the cluster can decide, as far as this node knows
	// Advice is set when the cluster cannot decide or soon might not: one line,
	// why and what to do.
	Advice string `json:"advice,omitempty"`

	Serving bool   `json:"serving"`         // this node holds its lease
	Cause   string `json:"cause,omitempty"` // why it is fenced, when not serving

	// Strays is how often this node found that PIDs outside of its window were given
	// out, since its daemon was started: such a process is not reached from other nodes.
	Strays uint64 `json:"strays,omitempty"`

	Time    TimeStatus    `json:"time"`              // of this node
	Booting []MachineInfo `json:"booting,omitempty"` // machines that are about to become nodes

	Nodes []NodeInfo `json:"nodes"` // by number; without the numbers never used
}

// LocalTime is the source of a clock that is the reference of the cluster itself.
const LocalTime = "local"

// TimeStatus is what the clock of one node follows, and how well.
type TimeStatus struct {
	Source  string `json:"source,omitempty"`  // HOST:PORT of the NTP server, or LocalTime
	Refused string `json:"refused,omitempty"` // why there is none although servers are asked
	Stratum int    `json:"stratum"`           // of this clock (RFC 5905); 16 is unsynchronised

	Offset     time.Duration `json:"offset_ns"`     // to be added to this clock, as of Updated
	Delay      time.Duration `json:"delay_ns"`      // of the round trip to the source
	Jitter     time.Duration `json:"jitter_ns"`     // of what the source says
	Dispersion time.Duration `json:"dispersion_ns"` // bound of the error of this clock
	Frequency  float64       `json:"frequency_ppm"` // correction in force, parts per million
	Updated    time.Time     `json:"updated,omitzero"`

	Disciplined bool   `json:"disciplined"`           // ssi sets this clock
	Why         string `json:"why,omitempty"`         // if not, why
	Serving     bool   `json:"serving"`               // the time is given to others: on the node that holds init
	ServeError  string `json:"serve_error,omitempty"` // what prevents that
}

// Find gives the node of this number.
func (s *ClusterStatus) Find(n id.Node) (NodeInfo, bool) {
	for _, node := range s.Nodes {
		if node.Node == n {
			return node, true
		}
	}
	return NodeInfo{}, false
}

// Transition is one numbered change of the membership or of the init holder.
type Transition struct {
	Epoch id.Epoch  `json:"transition"`
	Time  time.Time `json:"time"` // by the clock of the init node
	Node  id.Node   `json:"node"`
	From  State     `json:"from,omitempty"` // empty when init changed hands
	To    State     `json:"to,omitempty"`   // empty when init changed hands
	Term  uint64    `json:"term,omitempty"` // not 0: Node took init under this epoch
	Cause string    `json:"cause"`
}

// HistoryParams asks for transitions, the latest last.
type HistoryParams struct {
	Node  id.Node  `json:"node,omitempty"`  // only of this node
	After id.Epoch `json:"after,omitempty"` // only those numbered higher
	Limit int      `json:"limit,omitempty"` // at most this many, the latest; 0: all that are kept
}

// HistoryReply is the transitions asked for.
type HistoryReply struct {
	Transitions []Transition `json:"transitions"`
	Oldest      id.Epoch     `json:"oldest"` // the oldest transition that is still kept
}

// WatchParams asks for events as they happen.
type WatchParams struct {
	// After starts with the transition that follows this one; 0 starts now.
	// Transitions that are kept no more are left out and Missed says so.
	After id.Epoch `json:"after,omitempty"`
}

// ClusterEvent is one thing that happened; exactly one pointer is set.
type ClusterEvent struct {
	Missed     bool          `json:"missed,omitempty"` // transitions before this one are no longer kept
	Transition *Transition   `json:"transition,omitempty"`
	Serving    *ServingEvent `json:"serving,omitempty"`
}

// ServingEvent says that the node that answers got or lost its lease.
type ServingEvent struct {
	Time    time.Time `json:"time"`
	Serving bool      `json:"serving"`
	Cause   string    `json:"cause,omitempty"`
}

// SetStateParams asks for a transition by the operator.
type SetStateParams struct {
	Node  id.Node `json:"node"`
	State State   `json:"state"`
	Cause string  `json:"cause,omitempty"`
}

// SetStateReply is the transition that was made.
type SetStateReply struct {
	Transition id.Epoch `json:"transition"`
	From       State    `json:"from"`
}

// The actions of ShutdownParams.
const (
	ActionHalt     = "halt"
	ActionPowerOff = "poweroff"
	ActionReboot   = "reboot"
	ActionCancel   = "cancel" // of a shutdown that still waits for its time
)

// ShutdownParams asks a node to leave the cluster in order and to stop.
type ShutdownParams struct {
	Node    id.Node       `json:"node,omitempty"` // 0: the node that is asked
	Action  string        `json:"action"`
	Delay   time.Duration `json:"delay_ns,omitempty"` // the node is in SHUTDOWN until then; at most MaxShutdownDelay
	Message string        `json:"message,omitempty"`  // becomes the cause of the transition
}

// MaxShutdownDelay is how far ahead a shutdown can be asked for.
const MaxShutdownDelay = 7 * 24 * time.Hour

// ShutdownReply says when it will be.
type ShutdownReply struct {
	Node id.Node   `json:"node"`
	At   time.Time `json:"at"`
}

// TokenParams asks for a one-time token.
type TokenParams struct {
	TTL     time.Duration `json:"ttl_ns,omitempty"` // 0: DefaultTokenTTL; at most MaxTokenTTL
	Node    id.Node       `json:"node,omitempty"`   // the number it is good for; 0: the lowest free one
	Witness bool          `json:"witness,omitempty"`
}

// How long a one-time token is good for.
const (
	DefaultTokenTTL = time.Hour
	MaxTokenTTL     = 30 * 24 * time.Hour
)

// TokenReply is the token. It is a secret: it goes to the terminal or into a
// file, never into an argument or a log.
type TokenReply struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
	Addrs   []string  `json:"addrs"` // host:port of nodes that accept it
}

// RevokeParams withdraws every certificate of a node. A node that is still in
// the cluster is taken down; its number is free again once it is DOWN.
type RevokeParams struct {
	Node  id.Node `json:"node"`
	Cause string  `json:"cause,omitempty"`
}

// RevokeReply says what was withdrawn.
type RevokeReply struct {
	Node id.Node `json:"node"`
}

// ForceParams makes the node that is asked the only voter: the operator vouches
// that the lost voters are really off.
type ForceParams struct {
	Cause string `json:"cause,omitempty"`
}

// ForceReply says how it went on.
type ForceReply struct {
	Recovery uint64    `json:"recovery"` // how many times this cluster was forced
	Lost     []id.Node `json:"lost"`     // voters that must join again, empty
}

// RejoinParams makes the node put its own copy of the cluster's state aside and
// join again under its number, empty.
type RejoinParams struct{}

// RejoinReply says where the old state lies now.
type RejoinReply struct {
	Aside string `json:"aside"` // directory; empty when there was none
}
