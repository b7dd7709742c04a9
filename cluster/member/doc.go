// Package member is the membership of the cluster as every node knows it: who
// the nodes are, in which of the eight states each one is, which node holds
// init, and the numbered history of how it came to be so.
//
// It is a pure, deterministic state machine that package core replicates: the
// same commands in the same order give the same State, byte for byte, on every
// node. It has no clock (the leader's wall time comes with the command), no
// goroutine, no lock and no I/O, and it must never depend on the order of a
// map.
//
// Every change of a node's state and of the init holder is a Transition with a
// number of its own (id.Epoch), one larger than the one before.
//
// Limits: the newest MaxHistory transitions are kept; texts are cut at the
// lengths in limits.go; node numbers are 1 to id.MaxNode.
package member
