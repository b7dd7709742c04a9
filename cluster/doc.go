// Package cluster runs this node's part in the cluster: it drives cluster/core
// with clock, disk (cluster/raftlog) and transport (cluster/ics), publishes what
// the core decides, and offers the registry to the rest of the daemon.
//
// # Goroutines
//
// All are started by Run and have ended when it returns.
//
//	loop      owns the Core, the registry's Store and the durable log. Everything
//	          that wants something of them sends it a closure.
//	snapshot  one at a time, for the loop: shortens the log.
//	fence     ends serving and the init work at the times the core gave, also
//	          while the loop is stuck on a disk.
//	tenure    one each for what only the leader and only init may do: runs the work
//	          under a context that the fence ends with the hold, and waits for it.
//	goUp, found, savePeers   bring this node UP, write a new cluster's secrets into
//	          the registry, remember the addresses of the others.
//	serve     accepts connections (in cluster/ics).
//
// # Lock order
//
// fence.mu, tenure.mu, Published.mu. fence.mu is held over Config.OnServing, which
// therefore may call nothing of the Cluster, and over Transport.SetServing. The
// loop takes fence.mu too: what the core withdrew must have ended before a message
// leaves that lets another node take over.
//
// # Limits
//
// maxInbox messages of maxInboxBytes wait for the loop; more are dropped, as the
// network might. Calls wait for the loop until their context ends. The core bounds
// open proposals. A hook has hookTimeout, one runs at a time.
//
// # Never
//
// It must never send a message before what it promises is on disk, serve after
// ServingUntil, go on after a failed write, or start with an empty log where
// there was one.
package cluster
