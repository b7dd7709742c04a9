// Package gate catches the system calls that concern processes of other nodes.
//
// Filter makes a seccomp program from the table of vproc/call; the role spawn
// installs it, so that every process of a user has it. Calls that stay local never
// leave the kernel. The others arrive at a listener, which PID 1 keeps, so that they
// wait while no daemon runs; Gate receives and answers them: what the kernel of
// this node can do after all it is told to do (Continue), the rest a Handler
// decides.
//
// Calls are received straight into the journal, a mapped file: a daemon that is
// killed loses none. The next one finds what was received and not answered, asks
// the kernel which of it still waits, and handles it again under the same Origin,
// by which the executing node knows what it did already.
//
// Goroutines: one receiver per listener, on a thread of its own, and one per call
// that is not answered at once. Close waits for the receivers, and for the calls
// up to closeTime: one that reads the memory of a program which serves its own page
// faults (userfaultfd(2), FUSE) can hang as long as that program wants. Locks:
// Gate.mu and journal.mu, both leaves.
//
// Limits: slots calls are handled at a time, userCalls of one user other than root
// (above that EAGAIN); more wait in the kernel. A call takes at most callTime.
//
// It must never run in a process that has the filter, believe a pointer or a
// descriptor of a caller before asking whether the call still waits, or take a PID
// from a process of another PID namespace for one of the cluster.
package gate
