package core

import (
	"go.etcd.io/raft/v3"

	"ssi/cluster/member"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// Limits. Sizes in bytes.
const (
	MaxMessage  = 1 << 20   // of one encoded Message
	MaxCommand  = 640 << 10 // of one proposed command
	MaxPending  = 1024      // open proposals of a node, and as many barriers
	MaxSnapshot = 80 << 20  // of a snapshot

	batchBytes   = 256 << 10 // entries in one raft or feed message, beyond the first
	chunkBytes   = 256 << 10 // snapshot data in one message
	chunkWindow  = 4         // chunks on their way unanswered
	feedWindow   = 8         // feed messages on their way unanswered
	maxResult    = 512       // longest result kept for a retry
	keepEntries  = 4096      // log entries kept behind a snapshot for laggards
	maxUncommits = 16 << 20  // log entries a leader takes beyond what is committed
)

// Machine is the second replicated state beside the membership (the registry).
// It must be deterministic.
type Machine interface {
	Apply(index uint64, cmd []byte) (result []byte)
	Snapshot() ([]byte, error)
	Restore([]byte) error
}

// Config is what a Core is made from.
type Config struct {
	Cluster     string         // identity of the cluster; messages of another are dropped
	Self        id.Node        // this node's number
	Incarnation id.Incarnation // of this life of the node: unlike that of any earlier life, and larger if its clock was right
	Info        member.Info
	Timing      Timing
	Seed        uint64 // for small random delays

	// RaftID and Storage are what the durable log of this node holds: 0 and nil
	// without one. For Bootstrap they are FirstRaftID and an empty storage.
	RaftID    uint64
	Storage   raft.Storage
	Recovery  uint64 // as persisted with the log; NextRecovery(0, Self) for Bootstrap; 0 without a log
	Bootstrap bool   // found a new cluster with this node as only voter

	Contacts  []id.Node // nodes to ask while nothing else is known
	MaxVoters int       // 1 to 7; 0 means 7
	AutoUp    bool      // go from COMINGUP to UP without waiting for MarkUp

	SnapshotEntries uint64 // compact the log after so many entries; 0 means 10,000
	SnapshotBytes   uint64 // or so many bytes; 0 means 16 MiB

	faults faults // tests only: rules to break on purpose
}

// faults switches single rules off, so that tests can show that their checks
// would notice.
type faults struct {
	longLeader  bool // leader lease three times too long
	noFence     bool // node serves on without a lease
	noDedupe    bool // commands are applied as often as they arrive
	earlyExpire bool // nodes are declared dead after half their lease
	dirtyRead   bool // barriers are answered from the local state at once
	noGuard     bool // voters forget what they promised to the leader
}

func (c *Config) check() error {
	bad := func(format string, args ...any) error {
		return errno.New(errno.Invalid, "cluster core", c.Self, format, args...)
	}
	if c.Cluster == "" {
		return bad("no cluster identity")
	}
	if !c.Self.Valid() {
		return bad("%d is not a node number (1 to %d)", c.Self, id.MaxNode)
	}
	if c.Incarnation == 0 {
		return bad("no incarnation")
	}
	if err := c.Info.Check(); err != nil {
		return err
	}
	if err := c.Timing.Check(); err != nil {
		return err
	}
	if (c.RaftID == 0) != (c.Storage == nil) {
		return bad("a raft ID and a storage come together or not at all")
	}
	if c.RaftID != 0 && (nodeOf(c.RaftID) != c.Self || c.Recovery == 0) {
		return bad("raft ID %x or recovery generation %d is not one of this node", c.RaftID, c.Recovery)
	}
	if c.Bootstrap && (c.RaftID != FirstRaftID(c.Self) || !c.Info.Capable) {
		return bad("the first node must be capable of init and have the raft ID %x", FirstRaftID(c.Self))
	}
	if c.MaxVoters < 0 || c.MaxVoters > 7 {
		return bad("%d voters asked for; 1 to 7 make sense", c.MaxVoters)
	}
	if c.MaxVoters == 0 {
		c.MaxVoters = 7
	}
	if c.SnapshotEntries == 0 {
		c.SnapshotEntries = 10_000
	}
	if c.SnapshotBytes == 0 {
		c.SnapshotBytes = 16 << 20
	}
	return nil
}

// A raft ID is generation<<16 | node number. Generations of a node only grow.

// FirstRaftID is the raft ID of the node that founds a cluster.
func FirstRaftID(n id.Node) uint64 { return raftIDOf(1, n) }

func raftIDOf(generation uint64, n id.Node) uint64 { return generation<<16 | uint64(n) }

func nodeOf(raftID uint64) id.Node { return id.Node(raftID & 0xffff) }

// A recovery generation is count<<8 | number of the node that forced it, so that
// two nodes forced at once never share one.

// NextRecovery is the generation after old when node n is forced; with old 0 it
// is that of a new cluster.
func NextRecovery(old uint64, n id.Node) uint64 { return (old>>8+1)<<8 | uint64(n) }
