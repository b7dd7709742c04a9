// Package proctab is the process list of the cluster: it lists the processes of
// all nodes, signals and renices them in the caller's name, and tells the loads.
//
// Two sides in the node role. Node answers other nodes (the service
// ssi.vproc.Processes, processes.proto) from the proc(5) of this node's PID
// namespace. Local answers the commands of this machine (the ssi.process.*
// methods of internal/api): it asks all nodes at once, each with a deadline of
// its own; a node that does not answer costs its lines, never those of others.
//
// Who may: everybody may list, as on one Linux; the environment of a process is
// never read. Signal and renice run on a throwaway thread with the caller's
// user, groups and no capability, so that the kernel which owns the process
// decides (sys.As). The caller is told by the kernel at the local socket
// (api.Peer); nodes believe each other. The caller's process is not consulted:
// user 0 without CAP_KILL is user 0, and its real user does not count.
//
// Where a process is: its PID lies in the window of its home node (id.PID.Home).
// A process that lives elsewhere than at home is asked for at home, which says where
// it lives (Places), and then there; what is in its place at home, a surrogate, and stand-ins are
// never listed and never acted on. A process group may have members anywhere: it is acted on on all nodes.
// PIDs of window 0 (PID 1, the roles of ssi, what ran before the node joined) are
// local to their node and are addressed there.
//
// Lock order: Reader.mu and loadMeter.mu are leaves; neither is held across a
// call to anything outside the package. Goroutines: one of Node that measures the
// load every samplePeriod, ended by Close; and one for each asked node within a
// call of Local, which waits for them.
//
// Limits: api.MaxPIDs targets a call, api.MaxArgs bytes of a command line,
// maxScans listings of a node at a time, batchSize processes a message,
// maxProcesses a node.
//
// It must never follow what a process says about itself (exe, cwd, environ, fd),
// never signal PID 0 or -1, and never act on a process for which the caller's
// start time does not match.
package proctab
