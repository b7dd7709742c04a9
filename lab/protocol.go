package lab

import (
	"time"

	"ssi/internal/id"
)

// The methods of a lab's control socket; only root reaches it.
const (
	methodStatus = "ssi.lab.Status" // nothing → Status
	methodWait   = "ssi.lab.Wait"   // waitParams → nothing, when all nodes that are on are UP
	methodOp     = "ssi.lab.Op"     // opParams → opReply
	methodFault  = "ssi.lab.Fault"  // faultParams → nothing
	methodLogs   = "ssi.lab.Logs"   // logsParams → stream of logsReply
	methodExec   = "ssi.lab.Exec"   // execParams → upgrade, see session.go
)

// State is what the lab knows of a node as a machine.
type State string

// The states of a node's machine.
const (
	Off      State = "off"      // crashed, powered off, or not started yet
	Starting State = "starting" // before its PID 1 runs
	On       State = "on"
	Paused   State = "paused"
)

// NodeStatus is one node of a lab.
type NodeStatus struct {
	Node  id.Node   `json:"node"`
	Addr  string    `json:"addr"`
	State State     `json:"state"`
	Since time.Time `json:"since"`
	Boots int       `json:"boots"`           // how often it was started
	Cause string    `json:"cause,omitempty"` // why it is off
	PID   int       `json:"pid,omitempty"`   // of its PID 1, in the supervisor's numbers
	Wire  *Wire     `json:"wire,omitempty"`  // set when faults concern it
}

// Wire counts what the wire of a node with faults did, since it was put in.
type Wire struct {
	Passed  uint64 `json:"passed"`  // frames
	Dropped uint64 `json:"dropped"` // frames, by a cut, a loss or a full queue
}

// Status is a lab.
type Status struct {
	Name   string       `json:"name"`
	Since  time.Time    `json:"since"`
	Owned  bool         `json:"owned"` // ends with the process that started it
	Nodes  []NodeStatus `json:"nodes"`
	Faults []Fault      `json:"faults,omitempty"`
	VM     bool         `json:"vm,omitempty"`  // the nodes are machines
	PID    int          `json:"pid,omitempty"` // of the supervisor, in the host's numbers
}

type waitParams struct {
	Timeout time.Duration `json:"timeout_ns"`
}

// The operations of opParams.
const (
	opStart  = "start"
	opCrash  = "crash"
	opPause  = "pause"
	opResume = "resume"
	opAdd    = "add"
	opDown   = "down"
)

type opParams struct {
	Op   string  `json:"op"`
	Node id.Node `json:"node,omitempty"`
}

type opReply struct {
	Node id.Node `json:"node,omitempty"`
}

// Fault is one disturbance of the network. To is 0 for all that From sends and
// receives; else the fault concerns what From sends to To.
type Fault struct {
	From  id.Node       `json:"from"`
	To    id.Node       `json:"to,omitempty"`
	Cut   bool          `json:"cut,omitempty"`
	Delay time.Duration `json:"delay_ns,omitempty"` // added to each frame; at most maxDelay
	Loss  float64       `json:"loss,omitempty"`     // share of frames lost, 0 to 1
}

// What a faultParams changes.
const (
	setCut   = "cut"
	setDelay = "delay"
	setLoss  = "loss"
	healAll  = "heal"
)

// faultParams sets one kind of fault. A and B name a pair; B 0 means all traffic
// of A; both 0 (only with healAll) means everything.
type faultParams struct {
	Set    string        `json:"set"`
	A      id.Node       `json:"a,omitempty"`
	B      id.Node       `json:"b,omitempty"`
	OneWay bool          `json:"one_way,omitempty"` // only what A sends to B
	Delay  time.Duration `json:"delay_ns,omitempty"`
	Loss   float64       `json:"loss,omitempty"`
}

type logsParams struct {
	Node   id.Node `json:"node"`
	Follow bool    `json:"follow,omitempty"`
}

type logsReply struct {
	Data []byte `json:"data"`
}

type execParams struct {
	Node id.Node  `json:"node"`
	Args []string `json:"args"`
	Env  []string `json:"env"`
	Dir  string   `json:"dir"` // "/" if the node has no such directory
	TTY  bool     `json:"tty"`
	Rows uint16   `json:"rows,omitempty"`
	Cols uint16   `json:"cols,omitempty"`
}
