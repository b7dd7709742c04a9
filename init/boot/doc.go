// Package boot is what a machine of ssi does between the kernel and the roles, and
// at its end: the roles boot, getty, login and initctl. PID 1 runs them as processes of their own,
// since everything here may fail or hang: it reads files, waits for devices, runs
// fsck(8).
//
// The role boot (Run) carries out a table of steps, one after the other: initramfs
// when the machine goes on in another root, system in its root. Each has a
// time limit, or shows its progress. A step that fails is reported and left, or, if it
// is fatal, leads to a shell on the console that says why, and is tried again when that
// ends. Every step may be repeated: what is done already is left alone, so PID 1 starts
// the role again when it crashed. The console and the file ReportFile in the run
// directory tell the phases with their times (Report). With ArgSave and ArgEnd it is the
// end of the machine: the time and a random seed are saved, swap areas and file
// systems let go; what holds one is named.
//
// The role getty (RunGetty) becomes agetty(8), which executes the role login (RunLogin)
// in place of login(1), or asks for Enter and starts a shell of root where nobody has a
// password. Both start the session in the process space of the cluster (Space), as
// the leader of a new session that takes the terminal, if the node daemon says at that
// moment that the node serves; else, or when that takes too long, without.
//
// The role initctl (RunInitctl) reads the FIFO of sysvinit(8), by which the
// distribution's shutdown(8) and reboot(8) end the machine. It also watches the input
// devices that have a power key, as logind does: a press ends the machine in order. It
// reads from them nothing but power keys, and takes them from nobody: a graphical session
// gets them as well.
//
// Parameters of the kernel command line: ssi.hostname=, ssi.swap=DEVICE,…,
// ssi.watchdog=SECONDS|off, ssi.power_button=poweroff|reboot|ignore, ssi.console=shell, ssi.emergency; root=, rootfstype=,
// rootflags=, rootdelay=, ro, rw, init=, quiet, emergency, fsck.mode=auto|force|skip as
// elsewhere. ParseCommandLine gives the others to their users.
//
// Goroutines: Space.start has one, which enters the process space, with a thread that
// does nothing else; it is not waited for beyond enterTime. runner.attempt has one for the step, and waits for it but for a step
// that the kernel does not let end; within likewise. Both end with the process.
// RunInitctl has one for the power buttons, and that one for each of them that is
// open; each is waited for by its owner.
// Locks: runner.mu is held while the report is changed or written, and kmsgSink.mu
// while a line of the log is written, neither while another is taken; buttons.mu while
// process 1 is asked to end the machine, and kmsgSink.mu is taken then.
// context.AfterFunc of serveInitctl and buttons.watch only closes a file.
//
// Limits: the constants max…, and those of the steps in the tables.
//
// The role boot must never serve anything, or outlive the start. No role may let a login
// depend on the cluster, credit a random seed twice,
// mount for writing what fsck(8) refused, or give a shell without a password to
// others than those at the console of a machine where root has none.
package boot
