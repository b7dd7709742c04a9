// Package gate catches the system calls that concern processes of other nodes.
//
// Filter makes a seccomp program from the table of vproc/call; the role spawn
// installs it (Install), so that every process of a user has it. Calls that stay
// local never leave the kernel. The others arrive at a listener, which PID 1 keeps,
// so that they wait while no daemon runs; Gate receives and answers them.
//
// A caught call takes this way. Quick may decide at once, without a look at the caller's
// memory: so it is with the calls that are caught only because a PID of this node may be
// held by something that stands for a process elsewhere. Otherwise a worker finds out who calls, from proc(5), reads the memory
// that the call reads, asks the Handler, writes what the call writes, and answers. A
// caller in a PID namespace below ours means other processes by its numbers: its
// kernel goes on with the call, as with pidfd_send_signal(2) for a pidfd. The errors
// of the gate itself are EFAULT for memory that is not the caller's to read or
// write, EAGAIN above the limit of a user, ETIMEDOUT after callTime (it may have been
// done).
//
// Calls are received straight into the journal, a mapped file: the kernel either
// writes a call there or still has it (sys.ReceiveNotification), so a daemon that is
// killed loses none. The next one finds what was received and not answered, asks
// the kernel which of it still waits, and handles it again under the same Origin,
// by which the executing node knows what it did already. Close leaves its calls in
// the same way. Callers whose calls were in a journal that is damaged, or of another
// version of its format, wait until they are killed.
//
// Goroutines: one receiver per listener, which needs no thread while it waits, and
// one worker per call that is not ended by the receiver, of which up to keptWorkers of
// a listener stay for further calls. Close waits for all, up to
// closeTime: one that reads the memory of a program which serves its own page faults
// (userfaultfd(2), FUSE) can hang, with a thread, as long as that program lives.
// Locks: Gate.mu, journal.mu and caught.mu; caught.mu is held while the call is
// answered, the others are leaves.
//
// Limits: slots calls are handled at a time, of which a receiver that waits has one,
// and userCalls of one real user other than root; more wait in the kernel. A call of
// whose caller nothing is left keeps its place until the Handler returns. Each call
// has up to three descriptors for a moment, and a listener keeps up to keptCallers, so
// the daemon needs room for 4*slots.
//
// It must never run in a process that has the filter (the Go runtime signals itself,
// and would wait for itself), or in another PID namespace than its /proc; believe a
// pointer or a descriptor of a caller before asking whether the call still waits; or
// take a PID from a process of another PID namespace for one of the cluster.
package gate
