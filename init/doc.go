// Package pid1 is the role init: process 1 of a node (a package named init
// cannot be imported).
//
// It mounts what every program expects, runs the role boot, which makes the
// machine ready (package boot), then starts the roles mount, spawn and node, a getty
// for each console and the Services, and
// restarts each with back-off, reaps every process, keeps file descriptors for
// them across their restarts, and ends the machine in order. On a
// machine that has another init, or in a PID namespace, it does so without what
// concerns the machine: there is no role boot and no getty; where it is not
// process 1 it is a subreaper that touches no mounts, and ends by exiting.
//
// Everything that parses or may hang is in the role boot. It asks by the keeper's
// connection for the little that only process 1 can do: executing the init of
// a new root (switchRoot), feeding the hardware watchdog, ending the machine. If it crashes
// it is tried again, then it gives an emergency shell, then the machine goes on
// without it. At the end it is run twice more: when the users' processes have ended, to
// save the time and a random seed, and as the last process, to unmount.
//
// The end: the users' processes get SIGTERM, later SIGKILL, while all roles serve them;
// the node role leaves the cluster; time and seed are saved; the other roles end; swap
// and file systems are let go, what cannot be unmounted is named on the console; the
// root is remounted read-only; the watchdog is disarmed; reboot(2), or the loaded kernel (kexec). Each has a time
// limit (shutdown.go).
//
// Signals that ask for it: SIGRTMIN+3 halt, +4 power off, +5 reboot, +6 kexec, as for
// systemd(1); SIGUSR1 halt, SIGUSR2 power off, SIGTERM reboot, as BusyBox sends them;
// SIGINT, which is Ctrl-Alt-Del, reboot; SIGPWR power off. Where another process
// supervises this one SIGTERM switches off. The requests of sysvinit's FIFO and the
// presses of the power button come by the role initctl (boot.RunInitctl), which is one
// of the Services.
//
// On a machine of its own it logs to the kernel's log, and so do the roles
// (boot.RoleLog), which show on the console what the operator must see; the standard
// streams are the console.
//
// It is small so that it cannot fail: one goroutine, Run's, owns the state
// (roles, start, watchdog, shutdown) and is the only one that forks and reaps. watchChildren tells
// it when there is something to reap, and ends with the process. Two more per
// life of the node role move messages: link.read and link.report; one, link.read,
// per life of another role; link.close waits for them. They share with Run only store and ring, each under a lock of
// its own; neither lock is held while the other is taken or while anything blocks.
// The goroutine that writes the file systems at the end is waited for no longer than syncTime.
//
// Limits: keeper.MaxFiles kept files, keeper.MaxExits exit reports (older ones
// are dropped and counted), one pending request of a role, 8 consoles, maxFailures lives
// of a role boot that crashes.
//
// It must never touch a mount of the cluster, read anything from the network,
// wait for the node role, wait for a terminal, panic (every step recovers, logs and goes
// on), return from Run on a machine (a kernel panic), or grow.
package pid1
