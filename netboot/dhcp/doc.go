// Package dhcp is the cluster's DHCPv4 server: it gives the machines of the
// cluster their addresses and tells their firmware what to boot. It serves either
// a pool of its own, or as a proxy beside a server that others run, which keeps
// giving the addresses while this one says only what to boot.
//
// # Who is served
//
// Machines.Lookup decides. A machine that may boot gets its fixed address or one
// of Pool.Range. All others get an address of Pool.Guests, with which they can
// show on their console that they wait for approval, or, without such a part, no
// answer. They can take nothing from the others: a part, short leases and a rate
// of their own. The identity of a machine is its MAC address alone: firmware,
// boot loader and system use different client identifiers and are one machine.
//
// # Parts
//
// Core decides: time, request and leases in; reply, lease changes and events
// out. It has no clock, socket, goroutine or lock. Server drives it: two UDP
// sockets bound to an interface (ports 67 and 4011), and a packet socket for
// answers to machines that cannot answer ARP yet, which also shows other servers.
// The format of the packets is the library's, github.com/insomniacslk/dhcp/dhcpv4.
//
// # Leases
//
// An address is acknowledged only after Store has taken the lease, so another
// instance with the same store continues. The store must refuse a server whose
// time is over; then no address is given to two. A lease is kept Grace longer than
// the machine was told, for clocks that differ. Offers are in memory only:
// whoever serves when the machine accepts one grants it if the address is free.
// A declined address rests for Quarantine.
//
// # Goroutines and locks
//
// Serve runs one goroutine for each of the three sockets, one that commits to the
// store, and one that searches for other servers; it returns when all have ended. Lock:
// Server.mu, around Core; Server.limitMu, around the limiter of events. Neither is
// held while the other is taken or while something waits. Machines is called under
// Server.mu: it must answer from memory and must not call the server. Report is
// called without a lock and must not block.
//
// # Limits
//
// Pool addresses: MaxPool in each part, MaxPools pools. The memory of Core is
// bounded by the addresses, however many machines ask. Requests that wait for
// the store: maxQueue; then the kernel's socket buffer fills and drops. One commit
// takes maxBatch requests and at most commitTime. Events: one of a kind and address
// a minute.
//
// The package must never route, configure an interface, resolve a name, or
// answer for an address that another server manages.
package dhcp
