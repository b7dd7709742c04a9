// Package core is the cluster life of one node as a pure state machine:
// consensus (go.etcd.io/raft), node leases and fencing, the init role, the
// choice of voters, joining and leaving, and the delivery of commands exactly
// once.
//
// A Core is driven: the caller feeds it time (Tick), peers' messages (Receive)
// and wishes (Propose, Barrier, Leave), and after each carries out what Ready
// hands back, in the order that Output documents, and calls Advance. It has no
// clock, socket, goroutine or lock, reads no random source but its seed, and its
// outputs never depend on the order of a map: the same inputs give the same
// outputs, which is what lets a simulation test it.
//
//	for {
//		wait for a message, a call, or the time Wake names
//		core.Tick(now, wall)             // now: CLOCK_BOOTTIME, read after waking
//		core.Receive(now, from, msg) …   // now: read after the message arrived
//		for out := core.Ready(); out != nil; out = core.Ready() {
//			persist, publish the status, send, deliver …
//			core.Advance()
//		}
//	}
//
// # Roles
//
// A few nodes have raft state: voters, and learners on their way to it. All
// others are clients: they follow the committed log by messages of the leader
// (Feed, and snapshots in chunks), and need no disk. Every node, with raft state
// or without, applies the same entries in the same order, so each has the whole
// view and answers from its own memory.
//
// Raft IDs are never reused: each belongs to one process of one node, and a node
// that comes back without its log gets a new one. Of two voters the one that is
// left goes on alone when the other comes back and says that its log is lost
// (survivor.go); in all other cases without a quorum only Force helps.
//
// # Time and leases
//
// Three promises keep two nodes from acting at once; all measure time on one
// node only, and hold while clocks drift by less than 5% of each other.
//
// Leader lease. The leader numbers its heartbeat rounds; a voter that answers
// one will not vote for another for Timing.Election, nor will it vote in the
// first Timing.Election after its start. So the leader is alone until
// 0.9 Timing.Election after it SENT the newest round that a quorum answered.
// Once the leader offered its leadership to another (raft's transfer skips that
// rule) it never claims the lease again in that term.
//
// Node lease. A node says hello to the leader every quarter of the lease. The
// leader grants only while its own lease holds and after it applied an entry of
// its own term; the grant counts Timing.NodeLease from when the node SENT the
// hello. The leader declares a node dead not before Timing.LeaderLease after the
// last hello it RECEIVED; a new leader counts from its election. A leader that
// asked for a node's expiry never grants to that life of it again. So a node has
// always fenced itself before it is declared dead.
//
// Init. The leader is init holder once its term's InitTaken is applied, it is a
// living capable member, and its lease holds.
//
// # Limits
//
// Messages of at most MaxMessage bytes, commands of MaxCommand, MaxPending open
// proposals and barriers a node, snapshots of MaxSnapshot; the log is compacted
// every Config.SnapshotEntries entries or SnapshotBytes bytes. Every proposal
// and barrier has a deadline and exactly one Outcome.
//
// # Must never
//
// Trust the content of a message beyond what its authenticated sender may say of
// itself; answer from an old recovery generation; reuse a raft ID whose log was
// lost.
package core
