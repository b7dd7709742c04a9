// Package id holds the identifiers that every layer of ssi shares.
//
// They are distinct types so that a node number can never be passed where a
// process ID or an epoch is meant. The package imports nothing of ssi and
// keeps no state.
package id

import (
	"fmt"
	"strconv"
)

// Node is the number of a node in its cluster. Valid numbers are 1 to MaxNode;
// the zero value means "no node" (unknown, none, or not yet given).
type Node uint16

// MaxNode is the highest node number of a cluster with the default PID shift:
// a PID has 22 bits (PID_MAX_LIMIT in include/linux/threads.h), 15 of them
// count processes within a node.
const MaxNode Node = 127

// Valid reports whether n can be the number of a node.
func (n Node) Valid() bool { return n >= 1 && n <= MaxNode }

func (n Node) String() string { return strconv.Itoa(int(n)) }

// ParseNode reads a decimal node number in the range 1 to MaxNode.
func ParseNode(s string) (Node, error) {
	v, err := strconv.ParseUint(s, 10, 16)
	if err != nil || !Node(v).Valid() {
		return 0, fmt.Errorf("%q is not a node number (1 to %d)", s, MaxNode)
	}
	return Node(v), nil
}

// Epoch numbers the transitions of the membership. It starts at 1 with the
// creation of the cluster and grows by one with every transition; two nodes
// that know the same Epoch have the same view.
type Epoch uint64

// Incarnation tells the lives of one node number apart: it changes each time
// the node (not merely its daemon) starts. Zero means none.
type Incarnation uint64

// PID is a process ID, unique in the cluster: its upper bits name the node
// that allocated it.
type PID int32

// PIDShift is how many bits of a PID count processes within a node. It is a
// constant of the cluster, fixed when the cluster is created.
const PIDShift = 15

// Home is the node in whose window p lies, or 0 for window 0 (kernel threads
// and processes older than the membership).
func (p PID) Home() Node {
	if p <= 0 {
		return 0
	}
	return Node(p >> PIDShift)
}

// Window is the half-open range [first, end) of PIDs that node n allocates.
func (n Node) Window() (first, end PID) {
	return PID(n) << PIDShift, (PID(n) + 1) << PIDShift
}
