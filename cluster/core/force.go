package core

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// Forced is the content of the durable log of a node that was made the only
// voter: to be written as a new log with this identity in place of the old one.
type Forced struct {
	RaftID    uint64
	Recovery  uint64
	HardState *raftpb.HardState
	Snapshot  *raftpb.Snapshot
}

// Force makes the state of one voter that of the whole cluster, for an operator
// who says that the missing voters are switched off and stay so: the last means
// when no quorum is left. st and recovery are what the durable log of node self
// holds; app is empty, and is used up.
//
// All entries of the log count, also those of which this node cannot know
// whether they were committed: what was acknowledged to anyone by a quorum that
// this node belonged to is among them. The other nodes keep their place in the
// membership until the new leader declares them dead; those that are not
// switched off after all learn from the raised recovery generation that they
// were forced out.
func Force(self id.Node, raftID, recovery uint64, st raft.Storage, app Machine) (*Forced, error) {
	fail := func(format string, args ...any) (*Forced, error) {
		return nil, errno.New(errno.Invalid, "cluster force", self, format, args...)
	}
	if nodeOf(raftID) != self || recovery == 0 {
		return fail("raft ID %x or recovery generation %d is not one of this node", raftID, recovery)
	}
	rep := newReplica(app)
	snap, err := st.Snapshot()
	if err != nil {
		return fail("%w", err)
	}
	if !raft.IsEmptySnap(snap) {
		if err := rep.restore(snap.GetMetadata(), snap.GetData()); err != nil {
			return fail("%w", err)
		}
	}
	last, err := st.LastIndex()
	if err != nil {
		return fail("%w", err)
	}
	for rep.index < last {
		entries, err := st.Entries(rep.index+1, last+1, batchBytes)
		if err != nil || len(entries) == 0 {
			return fail("read the log from %d: %w", rep.index+1, err)
		}
		for _, e := range entries {
			if _, err := rep.apply(e); err != nil {
				return fail("%w", err)
			}
		}
	}
	if rep.index == 0 {
		return fail("this node's log is empty: there is no state to go on with")
	}
	hs, _, err := st.InitialState()
	if err != nil {
		return fail("%w", err)
	}
	rep.conf = raftpb.EnsureConfState(&raftpb.ConfState{Voters: []uint64{raftID}})
	forced, err := rep.snapshotAt()
	if err != nil {
		return fail("%w", err)
	}
	term := max(hs.GetTerm(), rep.term) + 1
	forced.Metadata.Term = new(rep.term)
	return &Forced{
		RaftID: raftID, Recovery: NextRecovery(recovery, self), Snapshot: forced,
		HardState: &raftpb.HardState{Term: new(term), Vote: new(uint64(0)), Commit: new(rep.index)},
	}, nil
}

// String names the forced state for the operator.
func (f *Forced) String() string {
	return fmt.Sprintf("state up to entry %d, recovery generation %d", f.Snapshot.GetMetadata().GetIndex(), f.Recovery)
}
