// Package lab makes a cluster of N nodes on one machine out of namespaces, for
// trying, developing and testing.
//
// # Processes
//
// A lab is a supervisor: a process that is PID 1 of a PID namespace of its own,
// with a mount, network, IPC and UTS namespace of its own, started by Start
// (role "lab-supervisor"). A node is a process the supervisor clones into its own
// PID, mount, network, IPC, UTS and cgroup namespaces (role "lab-node"): it lays
// out the node's mounts, runs the commands of the first boot and becomes
// `/sbin/ssi init` by exec. So the kernel itself ends everything with the
// supervisor, however it dies: processes, mounts, interfaces and namespaces are
// its own. Two things are not: the directory /run/ssi-lab/NAME and the cgroups
// ssi-lab-NAME. The supervisor removes them when it ends in order, and Start and
// Sweep remove those of supervisors that were killed. The supervisor holds a lock
// (flock) on /run/ssi-lab/NAME/lock as long as it lives: who gets the lock knows
// that the lab is gone; no process ID is ever trusted.
//
// A lab with an owner (Options.Detach not set) ends with it: the supervisor
// reads a pipe whose other end the owner holds.
//
// # A node
//
// The root file system of a node is an overlay of the host's root, without the
// host's other mounts, and the node's disk: a tmpfs of limited size that lives
// as long as the lab, so what a node wrote survives crash and start as on a disk.
// /tmp, /etc/ssi and /var/lib/ssi of the host are hidden; /run, /dev, /dev/shm,
// /dev/pts, /proc, /sys and the node's own cgroup tree are new at each start.
// /proc/sysrq-trigger is masked, the host's clock and modules are out of reach,
// but otherwise root in a node is root: a lab is a tool, not a jail.
//
// Node N has the address 10.85.0.N/24 on a bridge in the network namespace of the
// lab. Faults (cut, delay, loss) take the port of each node they concern off the
// bridge and put a wire of the supervisor between: an AF_PACKET socket on the
// port and a TAP interface in the bridge, which drops and delays frames toward
// the node by who sent them. Nodes without faults stay on the kernel's path.
//
// What a node runs is known by its contract only: `/sbin/ssi` is the binary of
// the supervisor; `ssi --install DIR` makes links, `ssi cluster init …` writes
// the first node's state and tokens (one a line), `ssi init` is PID 1, and the method
// ssi.cluster.Status on /run/ssi/ssi.sock tells which nodes are UP. The first
// boot of the other nodes leaves token and address in /etc/ssi/join.
//
// # Machines
//
// With Options.VM the nodes are machines (package vm) that the same supervisor
// owns. Start packs the initramfs of node 1 and its disk; this holds the kernel and
// initramfs of the others, given to the netboot service as they are. Node 1 founds the cluster
// and is told the MAC address of each of the others, which then boot from it with
// the node number that belongs to the address. Commands run in the shell on a
// machine's console, one at a time: shell types them and finds their output by
// marks; frame, its core, is pure. The machines' roots are in their memory, so a
// machine comes back by joining again; node 1, which founded, has its state on a disk.
//
// # Locks and goroutines
//
// Lock order: machine.op (serialises start, crash, pause … of one node), then
// supervisor.mu (what status shows), then network.mu (ports, faults, wires); with
// machines guest.op, then the console of a shell, then vmNodes.mu. The
// supervisor waits for all of its goroutines: those of a node's life (exit,
// console) in machine, those of a wire in wire.Close, those of the control socket
// in api.Server.Close. Namespaces are entered only on threads that end with
// their goroutine (sys.OnThread).
//
// # Limits
//
// MaxNodes nodes; consoles keep the last consoleSize bytes; a wire holds back at
// most wireFrames frames or wireBytes bytes in each direction and drops what comes
// over; every wait has a deadline.
//
// The package must never change the network, the mounts or the cgroups of others
// on the host, never trust a process ID read from a file, and never import
// another part of ssi than the internal packages, package rexec and, for machines,
// package initramfs.
package lab
