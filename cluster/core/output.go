package core

import (
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"ssi/cluster/core/corepb"
	"ssi/cluster/member"
	"ssi/internal/id"
)

// Message is what cores send each other.
type Message = corepb.Message

// Kind says which replicated machine a command is for. The numbers are part of
// the log format.
type Kind uint32

// The kinds of commands.
const (
	Membership Kind = 1 // a member.Command
	App        Kind = 2 // a command of Config's Machine
	opening    Kind = 3 // nothing: the first command of a process, see tickOwn
)

// Output is what the caller carries out, in this order: drop or create the
// durable log (DropRaft, NewRaft); persist Snapshot, Entries and HardState,
// synchronously with MustSync; take note of Status, so that what this node may
// no longer do has ended; send Messages; deliver Transitions and Outcomes; make
// Compact durable; warn with Notices. Then Advance. If persisting fails the
// caller must stop and must not send Messages.
type Output struct {
	DropRaft bool     // remove the durable log: its raft ID is dead
	NewRaft  *NewRaft // create a durable log, then call Attach (after Advance)

	HardState *raftpb.HardState
	Entries   []*raftpb.Entry
	Snapshot  *raftpb.Snapshot
	MustSync  bool

	Status   Status
	Messages []Outgoing

	Applied     uint64              // log index the local state has now
	Restored    bool                // the state was replaced by a snapshot: watchers of the Machine start anew
	Transitions []member.Transition // newly applied, in order
	Outcomes    []Outcome

	Compact *Compact
	Notices []string // one line each, for the log

	// Fatal is set once the node cannot go on (damaged state): the caller logs
	// it and stops; all later outputs are the same.
	Fatal error
}

// Outgoing is a message to a node; it may be lost.
type Outgoing struct {
	To  id.Node
	Msg *Message
}

// NewRaft asks for a durable log that starts with Snapshot.
type NewRaft struct {
	RaftID   uint64
	Recovery uint64
	Snapshot *raftpb.Snapshot
}

// Compact asks to keep Data as snapshot at Index and to drop log entries before
// Keep.
type Compact struct {
	Index     uint64
	ConfState *raftpb.ConfState
	Data      []byte
	Keep      uint64
}

// Outcome ends a proposal or a barrier; there is exactly one for each. For App
// commands Result is the machine's result; for Membership commands it is a
// member.Result and a refusal is also in Err. Err of kind errno.Unknown means
// the command may have been, or may yet be, carried out, at most once; any other
// kind means it was not.
type Outcome struct {
	Req    uint64
	Index  uint64 // log index of the command, or that the barrier waited for
	Result []byte
	Err    error
}

// Hold is something this node holds in a term until a time of its own clock; it
// ends then at the latest, whatever happens.
type Hold struct {
	Held  bool
	Term  uint64
	Until time.Duration
}

// At reports whether it is held at the time now.
func (h Hold) At(now time.Duration) bool { return h.Held && now < h.Until }

// Status is what this node is and may do. What it may do ends at the times given
// here even if no newer Status comes: the caller must look at its clock, or set
// a timer, and must not rely on being called.
type Status struct {
	Node        id.Node
	Incarnation id.Incarnation // changes when the node was declared dead and joins anew
	State       member.State   // of this life, as far as this node knows

	Serving      bool          // this node is a member and holds a lease
	ServingUntil time.Duration // its end
	Reason       string        // why not serving

	Lead Hold // leader with lease: does the cleanups
	Init Hold // init holder

	Leader id.Node // 0: not known
	Term   uint64
	RaftID uint64 // 0: no raft state
	Voter  bool
	Voters []id.Node
	// Learners catch up in order to vote. One may be among Voters too: it lost its
	// log, and its seat waits until the new log has caught up.
	Learners []id.Node
	// Lost are those of Voters whose log is lost: their votes are missing until new
	// logs have caught up.
	Lost []id.Node

	Cleanup []Cleanup // with Lead: what to clean up, then to confirm by Cleaned
	Left    bool      // Leave is complete; the daemon may stop
	Problem string    // one line for the operator, or empty

	Foreign uint64 // messages of other clusters dropped
	Applied uint64
}

// equal reports whether nothing changed.
func (s *Status) equal(o *Status) bool {
	return s.Node == o.Node && s.Incarnation == o.Incarnation && s.State == o.State && s.Serving == o.Serving &&
		s.ServingUntil == o.ServingUntil && s.Reason == o.Reason && s.Lead == o.Lead && s.Init == o.Init &&
		s.Leader == o.Leader && s.Term == o.Term && s.RaftID == o.RaftID && s.Voter == o.Voter &&
		slices.Equal(s.Voters, o.Voters) && slices.Equal(s.Learners, o.Learners) && slices.Equal(s.Lost, o.Lost) &&
		slices.Equal(s.Cleanup, o.Cleanup) && s.Left == o.Left && s.Problem == o.Problem && s.Foreign == o.Foreign && s.Applied == o.Applied
}

// Cleanup is a dead node whose remains this node, leading, has to clean up. When
// done the caller calls Cleaned with it.
type Cleanup struct {
	Node        id.Node
	Incarnation id.Incarnation
	To          member.State
}
