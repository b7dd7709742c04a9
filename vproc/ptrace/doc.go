// Package ptrace answers rexecve, the system call of the cluster by which a process
// becomes a program that runs on another node.
//
// The caller becomes this binary in the role SurrogateRole, which has the program
// started on the other node and stands for it: PID, parent, process group, session,
// terminal and descriptors stay what they are. If the node is the caller's own, it
// just executes the program.
//
// Nobody but the kernel can replace the program of a process, and only from within
// it. So the thread that waits for the answer is seized (ptrace(2)), and after the
// answer, before it is back in its program, its registers are set to an execveat(2)
// of an Order, by the instruction with which it called. An Order is a script in
// memory (memfd_create(2)) whose interpreter is this binary and whose other lines say
// what to run where; the answer of the gate gives it to the caller as a file, and
// the arguments and environment are read by the kernel where the caller has them.
// So nothing is ever written to the memory of a caller, which need not be its own
// (vfork(2)) or be writable, and one system call changes all. If it fails, the
// registers and the descriptor are put back, and rexecve returns the error.
//
// What can fail is asked before: whether the program can be executed, at the node
// that is to run it, in the caller's name (ServeCheck).
//
// # When daemons are killed
//
// Until the answer the call is in the journal of the gate, and the next daemon does
// all anew. After the registers are set the kernel goes on alone. In between, some
// ten microseconds, the caller is let go with what it has: for another node the
// number of the descriptor as result of rexecve, to be closed before a new try, which
// the functions of libcluster do; for its own node EAGAIN. If in the same moment the
// execveat fails, the registers in which arguments are passed are not put back. A daemon
// that is killed just before the answer may leave the caller one descriptor more.
//
// # Goroutines, locks, limits
//
// A call has one goroutine, on a thread of its own that ends with it, as it is by its
// thread that the kernel knows a tracer: whatever happens, that end lets the caller
// go on. Close waits for all of them, up to closeTime: one that reads the memory of a
// program which serves its own page faults (userfaultfd(2), FUSE), or seizes a thread
// of a process that is stuck in an execve(2), can hang as long as that program lives.
// So can a check whose file system hangs. Server.mu guards what is under way and is a
// leaf.
//
// Limits: maxCalls calls at a time, userCalls of one real user other than root, one
// of a process; maxChecks checks for others; maxStrings bytes of arguments and
// environment. A call is answered when its context ends; after that the caller has
// stopTime to be seen and execTime to execute, then it is let go.
//
// It must never leave a thread stopped or traced, set PTRACE_O_EXITKILL, write to the
// memory of a caller, or take credentials from anybody but the kernel.
package ptrace
