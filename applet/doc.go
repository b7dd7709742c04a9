// Package applet holds the commands that users type.
//
// Every command is a constructor of a cobra.Command in a table (Table). Main
// picks one entry by the name the program was started under (a link such as
// /usr/bin/onnode) or by its first argument (`ssi onnode`), and constructs
// only that one: a command pays for nothing but itself. A command is a thin
// client of the node daemon of its own machine, through internal/api; it never
// opens a connection to another node. What a command needs from the world is
// in Env, so that it runs in tests without a process of its own.
//
// Rules of all commands: results go to stdout, everything else to stderr as
// one line `NAME: what: why: what to do`. Exit status 0 is success, 1 a
// failure, 2 a command line that makes no sense; commands that run programs
// pass on the program's status. `--json` prints what programs read. Help is
// complete: synopsis, description, options, exit status, examples, see also;
// the man pages are made of the same text.
//
// The package keeps no state and has no locks. Goroutines exist only while
// onall and onclass run commands on several nodes; they end with the command.
// Calls to the daemon end after CallTimeout, watches when the user ends them.
//
// It must never do the daemon's work (decide, retry writes, keep state), never
// take a secret as an argument, and never import a role.
package applet
