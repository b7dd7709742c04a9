// Package call is the table of the system calls that name processes, and the form
// in which such a call travels from its caller to the node that executes it.
//
// Table has one row for each: its numbers, which arguments name whom, and what
// memory goes in and out. From it the gate makes its filter and reads the
// caller's memory, and the executing node knows what it has got. The rows below
// ClusterBase are calls that the kernel does not know.
//
// A Request is the same for all architectures: structures have the layout of
// x86-64 (siginfo_t, struct timespec with 64-bit time), numbers are names (Nr).
// Its encoding is the package's own, bounded, and refuses what no gate sends.
//
// The package is pure: no goroutines, no locks, no state. Limits: MaxMemory bytes
// in and out, MaxGroups groups, MaxRequest and MaxReply bytes encoded. It must
// never make a system call.
package call
