// Package netconf brings the network of this machine up as the tables
// [[interface]] of its configuration say, and keeps it so while the node runs.
//
// Its core is pure: MakePlan compares what is (State) with what is wanted
// (interfaces, leases) and returns the operations that lead from one to the
// other; where everything is as wanted it returns none. The driver reads the
// state over rtnetlink(7), applies operations, speaks DHCP (RFC 2131) and tells
// what it waits for. A Manager does this in a loop: after every change of a
// link, address or lease, and every half minute.
//
// Rules of the planner:
//
//   - It touches only interfaces that the configuration names, and the members
//     of its bonds. Without any it never changes a thing.
//   - An interface whose addresses are configured loses all others, apart from
//     those that the kernel made itself, and those that the nodes talk over
//     (Options.InUse): these stay until they are no longer in use, unless the
//     configuration says address = ["none"].
//   - While a DHCP server has not answered yet, addresses with a lifetime stay:
//     a node daemon that was started anew finds its lease again.
//   - Routes that ssi has set carry the protocol number RouteProtocol; only those
//     are ever removed. The default route of an interface that stands earlier in
//     the configuration wins.
//
// Addresses of a lease carry its lifetime in the kernel, so that they end with
// it even when the node daemon is dead.
//
// Look tells how links are, and a Watcher when they go down and come up; both work
// where another program configures the network, too.
//
// A second DHCP server on the network, which would give addresses twice, is named
// in the log when its offer is seen; the address comes from the first one.
//
// resolv.conf is written only if it is missing, empty, or was written by ssi.
//
// Goroutines: Run is the loop; it owns one goroutine per interface with DHCP, and
// those of two netlink subscriptions, and waits for all before it returns. So does
// Watcher.Run with that of its subscription. Lock
// order: Manager.mu is held for bookkeeping only, never over a system call.
//
// Limits: those of internal/config for interfaces, addresses and routes; 32
// routes, one router and 3 name servers of a lease; MaxHealth links are told of,
// and maxServers DHCP servers of each; every exchange with a DHCP
// server ends after 15 s at the latest and is then repeated with back-off (2 to
// 30 s); a plan that failed or that someone undid is repeated with back-off
// (0.04 to 10 s), while other changes are acted on at once (after 20 ms).
//
// The package must never change an interface that is not configured, never
// believe a DHCP server more than the checks of lease.go, and never run in PID 1,
// because it parses bytes from the network.
package netconf
