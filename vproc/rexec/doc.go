// Package rexec runs commands on other nodes so that they feel local: the
// server in the node role, and Run, the library of the user commands.
//
// Path: Run → local socket (method ssi.exec.Run, upgraded to frames) → the node
// role here, which fills in who the caller is from what the kernel tells and
// relays whole frames → bulk stream → the node role there → the spawn role. The
// end of the process comes back from PID 1 through Server.Exited.
//
// # What is local-like
//
// The command has the caller's user, groups, directory, environment (and
// SSI_NODE, the node it runs on), umask, resource limits and nice value. If
// stdin and stdout of the caller are terminals, it has a terminal of the same
// modes and size, whose leader stands between it and PID 1 so that ^Z works;
// the caller's terminal is raw meanwhile, and stops and continues with the
// command. A stderr that is not that terminal stays separate. If only stdin is a
// terminal, there is none there; lines are sent while the caller is in the
// foreground and the terminal is in line mode, so `onnode 2 cat f | less` leaves
// the keys to less. Signals that reach the caller go to the command's process
// group; SIGTSTP arrives as SIGSTOP if it has no terminal. While the caller is in
// the background of its terminal, so is the command: the kernel there stops it
// when it reads (SIGTTIN), and the caller stops with it. Whoever stops, continues or
// kills the command itself has the caller do the same (waker.go).
//
// Exit status and death by signal are the command's; 127 not found, 126 not
// executable or no such directory, 255 no result. The end of the command ends
// the caller at once if its stdout is a terminal or a file; if it is a pipe, once
// the descendants that still hold stdout have closed it.
//
// # Places
//
// A caller that does nothing but run one command (Options.Surrogate) stands for it: the
// command has its PID, parent, process group and session, if the other node can give it
// them (Config.Places), and the caller is its surrogate. It catches all signals with
// their senders and passes them on: what the terminal here sent goes to the members of
// the process group there, by one surrogate of the group and node (represents); all else
// to the command alone, in the sender's name. The caller's node tells the other one when
// a parent or leader has ended here, and that the surrogate was killed, which kills the
// command. It knows where its surrogates' processes live (LivesOn, Config.Moved).
//
// What is said below and above of a command's process group holds without a place. The
// caller's own node has it become the command itself (Here).
//
// # Loss
//
// When the caller dies or the connection breaks, the command's session gets
// SIGHUP and SIGCONT, and its process group SIGKILL after hangupTime; processes
// that left the session stay. Each attached command is noted under
// RunDir/rexec by PID and pidfd inode, so that a new node role hangs up what an
// earlier one left. Fence kills the cgroup that holds all of them and the spawn
// role.
//
// # Concurrency and limits
//
// A command has a goroutine for the connection (the handler's own), one for each
// output, one for stdin and one for its end; all have ended when the handler
// returns, and closing the connection or the files ends each. A relay has two, and one
// for each process that a stand-in stands for. A caller has one for its signals, and one more while it may be stopped and is to go on.
// Locks, none of which is held while another is taken: Server.mu guards the
// tables and hangups.mu a list, neither while anything blocks; command.wmu and
// caller.wmu are held while a frame is written; queue.mu and credit.mu guard
// counters.
//
// Limits: MaxRunning commands and relays each, proc.MaxSpec bytes of arguments
// and environment, maxData bytes a frame, stdinWindow bytes of stdin under way:
// the only flow that needs credit, so that a signal is never stuck behind input
// that nobody reads. Outputs rely on the connection's back-pressure; a caller that
// does not read its stderr holds up its stdout too. Writes have no deadline (the
// caller may be a pager): the end of the peer, Fence and Close end them.
//
// The package must never run anything for a caller that the kernel did not
// name, or take credentials from the caller's word.
package rexec
