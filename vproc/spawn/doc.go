// Package spawn is the role spawn: it creates the processes of remote commands.
//
// The role serves one connection at a time on the socket that PID 1 passed to
// it, and on it one request at a time: Go's runtime creates processes one by
// one anyway. A process is made with CLONE_PARENT, so PID 1 is its parent and
// reports its end; what is not inherited from the request is PID 1's default.
// The role keeps no state: killed at any moment it is started anew, and the
// client's pending request ends with an error. When the connection ends before
// the answer is sent, the new process is killed.
//
// Run works on one thread of its own, because umask and nice value belong to a
// thread here and the resource limits, which belong to the process, may be
// changed around a fork only while nothing else forks.
//
// A process with a terminal gets a session leader in between (RunSession, the
// same binary as the caller's user): a process whose parent is in another
// session cannot be stopped from the terminal, since the kernel holds its group
// for orphaned (POSIX, "orphaned process group"). The leader passes on stops,
// continues, signals and the end.
//
// Client is the node role's side; Client.mu is held during one request, at most
// until the deadline. Limits: proc.MaxSpec bytes a request, three files.
//
// It must never read a file of the user as root, keep a descriptor of a
// request, or take a request from anyone but root.
package spawn
