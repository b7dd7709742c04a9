// Package standin creates processes that have the PID, parent, process group and
// session which their surrogate has on another node (proc.Place).
//
// On this node the parent and the leaders are missing. Stand-ins hold their PIDs:
// hollow processes (sys.Hollow), a few KiB each, which have the right parent, group
// and session among themselves, so that for this kernel everything is as it is for
// the kernel at home: getppid, orphaned process groups, the controlling terminal.
// They do nothing but hold numbers and carry out orders.
//
// One of them, the root, is made by the role spawn, so that all others have the users'
// view and filter. Maker.Create first makes all that is missing, and the process itself,
// as stand-ins; then the process is ordered to take the descriptors, the limits and the
// identity of the command and to execute it. A stand-in whose owner arrives becomes it in
// the same way. A leader of a session, and a process whose parent is init at home, is a
// child of PID 1 here, which reports its end; others are reported by the stand-in that is
// their parent, and by Config.Exited.
//
// A stand-in stays while a process that is none has its number as parent, group or
// session, and ends at once when its owner has (Maker.Gone); its children are init's
// then, as at home. Those of a daemon that was killed are ended by the next one.
//
// Goroutines: one reads the reports, one ends what nobody needs; Close waits for both.
// Locks: Maker.mu is held while orders are carried out, for orderTime and a few of them;
// held.mu is a leaf, so what the gate asks (StandIn, StandIns) never waits.
//
// Limits: what does not fit into the arena (sys.ArenaSize), and more than maxStandIns,
// cannot be placed.
//
// It must never use a PID that somebody else holds, leave a stand-in to a program (exec
// closes its files), or let a user's process be traced before its program runs:
// setresuid(2) clears its dumpable flag, see PR_SET_DUMPABLE in prctl(2), and execve(2)
// sets it again.
package standin
